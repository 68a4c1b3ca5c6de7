"""Attention instability against the shift of the two views (the paper's Table 9, as a curve)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitscope.figures.instability import LEGEND, interval_bars
from vitscope.figures.style import (
    HIGH,
    INK,
    LOW,
    TEXT_PT,
    add_legend,
    label_axes,
    new_panel,
    say_empty,
)
from vitscope.scope.instability_summary import ReadingInstability

NUDGE = 0.06
"""Sideways distance of the two groups from their shift, so that close bars do not cover."""

HEADROOM = 1.08
"""Share of the height up to the highest bar."""


def plot_shifts(rows: Sequence[ReadingInstability]) -> Figure:
    """Draw mean EMD of both groups over the shift, one panel a reading, in the order of ``rows``.

    Args:
        rows: of one membership, every shift under every reading.
    """
    readings = list(dict.fromkeys(row.reading for row in rows))
    panel = new_panel(0.75 + 1.5 * max(len(readings), 1), rows=max(len(readings), 1))
    label_axes(panel.axes[-1], x="shift s between the two views (patches)")
    handles: list[object] = []
    for ax, reading in zip(panel.axes, readings, strict=False):
        handles = _draw_reading(ax, [row for row in rows if row.reading == reading])
    if not handles:
        say_empty(panel.axes[0], "no attention was compared")
        return panel.figure
    shifts = sorted({row.shift for row in rows})
    panel.axes[-1].set_xticks(shifts, [str(shift) for shift in shifts])
    panel.figure.supylabel("mean EMD (patches)", fontsize=TEXT_PT, color=INK)
    add_legend(panel.figure, handles, LEGEND)
    return panel.figure


def _draw_reading(ax: Axes, rows: Sequence[ReadingInstability]) -> list[object]:
    shifts = np.asarray([row.shift for row in rows], dtype=np.float64)
    handles: list[object] = []
    top = 0.0
    for groups, colour, marker, side in (
        ([row.non for row in rows], LOW, "o", -1),
        ([row.out for row in rows], HIGH, "D", 1),
    ):
        means, bars = np.asarray([group.mean for group in groups]), interval_bars(groups)
        x = shifts + side * NUDGE
        handles.append(
            ax.errorbar(
                x,
                means,
                yerr=bars,
                fmt=marker,
                ms=4.5,
                ls="-",
                lw=1.2,
                color=colour,
                elinewidth=1.6,
            )
        )
        top = max(top, float(np.max(np.nan_to_num(means + bars[1]), initial=0.0)))
    ax.set_ylim(0, HEADROOM * top if top > 0 else 1.0)
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    ax.set_title(rows[0].reading, loc="left", fontsize=TEXT_PT, fontweight="bold", color=INK, pad=3)
    return handles
