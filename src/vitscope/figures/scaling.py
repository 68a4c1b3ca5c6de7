"""What probes read with and without each group, over the sizes of a family (the paper's Figure 8).

Below it the same as differences from the original, whose intervals are narrower: all variants of a
model share their images, batches and trials.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vitscope.axes import Float
from vitscope.figures.style import (
    BULK,
    HIGH,
    INK,
    LOW,
    MUTED,
    add_legend,
    label_axes,
    new_panel,
    say_empty,
)

STYLES: dict[str, tuple[str, str, object]] = {
    "original": (INK, "o", "-"),
    "high": (HIGH, "D", (0, (4, 2))),
    "low": (LOW, "s", "-"),
    "random-high": (BULK, "^", (0, (1.2, 1.6))),
    "random-low": (MUTED, "v", (0, (6, 2, 1.2, 2))),
}
"""Kind of line -> colour, marker and dashes, so that colour alone decides nothing."""

NUDGE = 0.05
"""Sideways distance of neighbouring lines, in models, so that close bars do not cover."""

MARGIN = 0.35
"""Room left of the first model and right of the last, in models."""

UNITS = ((1e9, "B"), (1e6, "M"), (1e3, "k"))

ROUNDS_UP = 0.9995
"""Of a unit: from there on it is written as 1.0 of it, never as 1000 of the next."""


@dataclass(frozen=True, eq=False)
class ScalingLine:
    """One kind of tokens over all models; NaN where a model has none, or no interval.

    Attributes:
        name: in the legend.
        kind: a key of ``STYLES``.
        value: mean, and both ends of its interval, by model.
        change: difference from the original, likewise.
    """

    name: str
    kind: str
    value: Float[NDArray[np.float64], "n 3"]
    change: Float[NDArray[np.float64], "n 3"]


def plot_scaling(
    models: Sequence[tuple[str, int | None]], lines: Sequence[ScalingLine], metric: str
) -> Figure:
    """Draw every line over the models, which stand at equal distances.

    Args:
        models: name and number of parameters, smallest first; None is unknown.
        lines: the original first.
        metric: what is measured, for the axis.
    """
    panel = new_panel(5.0, rows=2)
    ax, below = panel.axes
    ax.get_gridspec().set_height_ratios([3, 2])  # pyright: ignore[reportOptionalMemberAccess]
    label_axes(ax, y=metric)
    label_axes(below, y="change from original")
    if not any(np.isfinite(line.value[:, 0]).any() for line in lines):
        say_empty(ax, "no model has been probed")
        return panel.figure
    handles = [_draw(ax, line, i, len(lines), line.value) for i, line in enumerate(lines)]
    below.axhline(0, color=INK, lw=1.0)
    for i, line in enumerate(lines):
        if line.kind != "original":
            _draw(below, line, i, len(lines), line.change)
    below.set_xticks(range(len(models)), [f"{name}\n{size_text(size)}" for name, size in models])
    below.set_xlim(-MARGIN, len(models) - 1 + MARGIN)
    for axes in panel.axes:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    panel.figure.align_ylabels()
    add_legend(panel.figure, handles, [line.name for line in lines], columns=2)
    return panel.figure


def size_text(n_parameters: int | None) -> str:
    """Write a number of parameters: 430 k, 86 M, 1.1 B."""
    if n_parameters is None:
        return "size unknown"
    for unit, letter in UNITS:
        if n_parameters >= ROUNDS_UP * unit:
            scaled = n_parameters / unit
            return f"{scaled:.1f} {letter}" if scaled < 10 else f"{scaled:.0f} {letter}"
    return str(n_parameters)


def _draw(ax: Axes, line: ScalingLine, i: int, n: int, values: NDArray[np.float64]) -> Any:
    colour, marker, dashes = STYLES[line.kind]
    mean, low, high = values.T
    ends = np.maximum(np.nan_to_num(np.stack([mean - low, high - mean])), 0.0)
    places = np.arange(len(mean)) + (i - (n - 1) / 2) * NUDGE
    return ax.errorbar(
        places,
        mean,
        yerr=ends,
        color=colour,
        marker=marker,
        ls=dashes,
        ms=5.5,
        lw=1.5,
        elinewidth=1.2,
    )
