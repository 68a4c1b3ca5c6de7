"""Accuracy against confidence, by bins of confidence: whether a prediction is as sure as right."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from vitscope.figures.style import (
    HIGH,
    INK,
    LOW,
    MUTED,
    add_legend,
    label_axes,
    new_panel,
    say_empty,
)
from vitscope.probes.calibration import Reliability

STYLES: dict[str, tuple[str, str, str]] = {
    "": (INK, "o", "-"),
    "high": (HIGH, "D", "--"),
    "low": (LOW, "s", "-"),
}
"""Tone -> colour, marker and line."""

FEWEST = 10
"""Predictions that a bin needs for a point: the accuracy of a few is chance."""


def plot_reliability(diagrams: Sequence[tuple[str, str, Reliability]]) -> Figure:
    """Draw one line per (name, tone, diagram), above how many predictions lie in each bin."""
    panel = new_panel(4.0, rows=2)
    figure, (ax, below) = panel.figure, panel.axes
    ax.get_gridspec().set_height_ratios([3, 1])  # pyright: ignore[reportOptionalMemberAccess]
    label_axes(ax, y="accuracy")
    label_axes(below, x="confidence of the prediction", y="share")
    if not any(sum(diagram.n) for *_, diagram in diagrams):
        say_empty(ax, "nothing was predicted")
        return figure
    ax.plot([0, 1], [0, 1], color=MUTED, lw=1.0, ls=(0, (4, 3)))
    handles = []
    for _, tone, diagram in diagrams:
        colour, marker, style = STYLES[tone]
        n = np.asarray(diagram.n)
        enough = n >= FEWEST
        confidence, accuracy = np.asarray(diagram.confidence), np.asarray(diagram.accuracy)
        (line,) = ax.plot(
            confidence[enough],
            accuracy[enough],
            color=colour,
            ls=style,
            lw=1.4,
            marker=marker,
            ms=5,
        )
        handles.append(line)
        below.stairs(n / max(n.sum(), 1), np.asarray(diagram.edges), color=colour, ls=style, lw=1.4)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.02)
    below.set_ylim(bottom=0)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MultipleLocator(0.25))
    add_legend(figure, handles, [name for name, *_ in diagrams], columns=2)
    return figure
