"""One look for every figure: colours that colour-blind readers tell apart, few lines, no frame.

Figures are built with matplotlib's object-oriented API and explicit properties, never through
pyplot or rcParams, so that drawing one changes nothing for a caller who draws others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

INK = "#1a1d21"
MUTED = "#5b6470"
GRID = "#e2e5e9"
PAPER = "#fefefe"
LOW = "#0072b2"
"""Low-CDS features, and tokens that are no outliers (Okabe-Ito blue)."""
HIGH = "#d55e00"
"""High-CDS features, and outlier tokens (Okabe-Ito vermillion)."""
BULK = "#9aa5b1"
"""What belongs to no group."""

RUN_STYLES: tuple[tuple[str, object], ...] = (
    (LOW, "-"),
    (HIGH, (0, (4, 2))),
    (INK, (0, (1.2, 1.6))),
    (MUTED, (0, (6, 2, 1.2, 2))),
    ("#009e73", "-"),
    ("#cc79a7", (0, (4, 2))),
    ("#56b4e9", (0, (1.2, 1.6))),
    ("#e69f00", (0, (6, 2, 1.2, 2))),
)
"""Colour (Okabe-Ito) and dashes of each run in turn, so that colour alone decides nothing."""

ROLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    PAPER: "paper",
    LOW: "low",
    HIGH: "high",
    BULK: "bulk",
}
"""Colour -> name of its role: a page may give each role another colour (see ``svg``)."""

WIDTH_IN = 4.9
"""Narrow enough that the text stays legible when a phone shrinks the figure to its width."""

PAGE_IN = 7.0
"""The whole width of a page: figures that are made of pictures."""

TEXT_PT = 9.5
SMALL_PT = 8.5


@dataclass(frozen=True)
class Panel:
    """A figure with its axes, from top to bottom."""

    figure: Figure
    axes: tuple[Axes, ...]


def new_panel(height_in: float, *, rows: int = 1) -> Panel:
    """Start a figure of the common width with ``rows`` axes over one another, sharing x."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained", facecolor="white")
    grid = figure.subplots(rows, 1, sharex=True, squeeze=False)
    axes: tuple[Axes, ...] = tuple(grid[:, 0])
    for ax in axes:
        _bare(ax)
    return Panel(figure, axes)


def label_axes(ax: Axes, *, x: str | None = None, y: str | None = None) -> None:
    """Name the axes, units included."""
    if x is not None:
        ax.set_xlabel(x, fontsize=TEXT_PT, color=INK)
    if y is not None:
        ax.set_ylabel(y, fontsize=TEXT_PT, color=INK)


def mark_x(
    ax: Axes,
    x: float,
    text: str,
    *,
    dashed: bool = False,
    left: bool = False,
    level: float = 1.0,
    on_paper: bool = False,
) -> None:
    """Draw a vertical line at ``x`` up to ``level`` of the height, with ``text`` beside its end.

    ``on_paper`` lays paper under the text, where there may be marks below it.
    """
    ax.axvline(
        x, ymax=level, color=MUTED if dashed else INK, lw=1.2, ls=(0, (4, 3)) if dashed else "-"
    )
    ax.annotate(
        text,
        (x, level),
        xycoords=("data", "axes fraction"),
        xytext=(-5 if left else 5, -2),
        textcoords="offset points",
        ha="right" if left else "left",
        va="top",
        fontsize=SMALL_PT,
        color=MUTED if dashed else INK,
        bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
        if on_paper
        else None,
    )


def add_legend(
    figure: Figure, handles: Sequence[Any], labels: Sequence[str], *, columns: int | None = None
) -> None:
    """Put a frameless legend above the axes, in one line or so many columns."""
    figure.legend(
        handles,
        [literal(label) for label in labels],
        loc="outside upper left",
        ncols=columns or len(labels),
        frameon=False,
        fontsize=SMALL_PT,
        labelcolor=INK,
        handlelength=1.2,
        columnspacing=1.6,
        borderpad=0.1,
    )


def literal(text: str) -> str:
    """Return somebody's own words as matplotlib draws them unchanged: dollars begin no formula."""
    return text.replace("$", r"\$")


def say_empty(ax: Axes, text: str) -> None:
    """Say in the middle of empty axes why there is nothing to see."""
    ax.text(
        0.5,
        0.5,
        text,
        transform=ax.transAxes,
        ha="center",
        va="center",
        fontsize=TEXT_PT,
        color=MUTED,
    )


def plain_numbers() -> FuncFormatter:
    """Format ticks as 0.5, 20, 1,000: never as powers of ten, which need mathematical type."""

    def text(value: float, _position: int | None = None) -> str:
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"

    return FuncFormatter(text)


def _bare(ax: Axes) -> None:
    ax.patch.set_alpha(0.0)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(MUTED)
    ax.tick_params(which="both", colors=MUTED, labelsize=SMALL_PT, labelcolor=INK, length=3)
    ax.tick_params(axis="y", which="both", length=0)
    ax.grid(axis="y", color=GRID, lw=0.8)
    ax.set_axisbelow(True)
