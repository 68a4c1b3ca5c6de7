"""How far attention moves for outlier and other tokens, under the three readings (Table 7)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitscope.figures.style import (
    GRID,
    HIGH,
    INK,
    LOW,
    SMALL_PT,
    TEXT_PT,
    add_legend,
    label_axes,
    mark_x,
    new_panel,
    say_empty,
)
from vitscope.scope.instability_summary import GroupInstability, ReadingInstability

OFFSET = 0.16
"""Vertical distance of the two groups from the middle of their reading's row."""

LEGEND = ["other tokens", "outlier tokens"]


def plot_instability(readings: Sequence[ReadingInstability], diameter: float) -> Figure:
    """Draw D̄_out and D̄_non with their intervals, beside the largest possible D_grid."""
    panel = new_panel(0.95 + 0.55 * max(len(readings), 1))
    ax = panel.axes[0]
    label_axes(ax, x="mean EMD between the two views (patches)")
    finite = [g.mean for r in readings for g in (r.out, r.non) if np.isfinite(g.mean)]
    if not finite:
        say_empty(ax, "no attention was compared")
        ax.set_yticks([])
        return panel.figure
    handles = [_draw_group(ax, readings, group) for group in ("non", "out")]
    ax.set_ylim(len(readings) - 0.5, -0.5)
    ax.set_yticks(range(len(readings)), [r.reading for r in readings], fontsize=TEXT_PT)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color=GRID, lw=0.8)
    ax.set_xlim(0, max(1.02 * diameter, 1.1 * max(finite)))
    mark_x(ax, diameter, "D_grid", dashed=True, left=True)
    add_legend(panel.figure, handles, LEGEND)
    return panel.figure


def _draw_group(ax: Axes, readings: Sequence[ReadingInstability], group: str) -> object:
    colour, marker, offset = (HIGH, "D", OFFSET) if group == "out" else (LOW, "o", -OFFSET)
    values = [r.out if group == "out" else r.non for r in readings]
    means = np.asarray([v.mean for v in values])
    bars = interval_bars(values)
    rows = np.arange(len(readings)) + offset
    handle = ax.errorbar(means, rows, xerr=bars, fmt=marker, ms=6, color=colour, elinewidth=1.6)
    for mean, bar, row in zip(means, bars[1], rows, strict=True):
        if np.isfinite(mean):
            ax.annotate(
                f"{mean:.2f}",
                (mean + bar, row),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                fontsize=SMALL_PT,
                color=INK,
            )
    return handle


def interval_bars(groups: Sequence[GroupInstability]) -> NDArray[np.float64]:
    """Return lengths [2, n] of the error bars below and above each mean; 0 where undefined.

    A percentile interval may, by a hair, leave out the mean it belongs to: never a negative length.
    """
    ends = [(group.mean - group.low, group.high - group.mean) for group in groups]
    return np.maximum(np.nan_to_num(np.asarray(ends, dtype=np.float64).T), 0.0)
