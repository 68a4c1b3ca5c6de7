"""How far attention moves for outlier and other tokens, by reading (Table 7), shift (Table 9)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
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
from vitscope.stages.instability import InstabilityResult

OFFSET = 0.16
"""Vertical distance of the two groups from the middle of their reading's row."""

LEGEND = ["other tokens", "outlier tokens"]

NUDGE = 0.06
"""Sideways distance of the two groups from their shift, so that close bars do not cover."""

HEADROOM = 1.08
"""Share of the height up to the highest bar."""


def plot_instability(result: InstabilityResult) -> Figure:
    """Draw D̄_out and D̄_non with their intervals, beside the largest possible D_grid."""
    readings, diameter = result.own, result.diameter
    panel = new_panel(0.95 + 0.55 * max(len(readings), 1))
    ax = panel.axes[0]
    label_axes(ax, x="mean EMD between the two views (patches)")
    finite = [g.mean for r in readings for g in (r.outlier, r.other) if np.isfinite(g.mean)]
    if not finite:
        say_empty(ax, "no attention was compared")
        ax.set_yticks([])
        return panel.figure
    handles = [_draw_group(ax, readings, group) for group in ("other", "outlier")]
    ax.set_ylim(len(readings) - 0.5, -0.5)
    ax.set_yticks(range(len(readings)), [r.reading for r in readings], fontsize=TEXT_PT)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color=GRID, lw=0.8)
    ax.set_xlim(0, max(1.02 * diameter, 1.1 * max(finite)))
    mark_x(ax, diameter, "D_grid", dashed=True, left=True)
    add_legend(panel.figure, handles, LEGEND)
    return panel.figure


def _draw_group(ax: Axes, readings: Sequence[ReadingInstability], group: str) -> object:
    colour, marker, offset = (HIGH, "D", OFFSET) if group == "outlier" else (LOW, "o", -OFFSET)
    values = [r.outlier if group == "outlier" else r.other for r in readings]
    means = np.asarray([v.mean for v in values])
    bars = _interval_bars(values)
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


def _interval_bars(groups: Sequence[GroupInstability]) -> NDArray[np.float64]:
    """Return lengths [2, n] of the error bars below and above each mean; 0 where undefined.

    A percentile interval may, by a hair, leave out the mean it belongs to: never a negative length.
    """
    ends = [(group.mean - group.low, group.high - group.mean) for group in groups]
    return np.maximum(np.nan_to_num(np.asarray(ends, dtype=np.float64).T), 0.0)


def plot_shifts(result: InstabilityResult) -> Figure:
    """Draw mean EMD of both groups over the shift, one panel a reading, the study's own first."""
    rows = result.shown
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
        ([row.other for row in rows], LOW, "o", -1),
        ([row.outlier for row in rows], HIGH, "D", 1),
    ):
        means, bars = np.asarray([group.mean for group in groups]), _interval_bars(groups)
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
