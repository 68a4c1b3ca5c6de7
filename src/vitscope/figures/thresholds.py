"""A threshold on a histogram: where it is, how far it may move, and where others would cut."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes

from vitscope.figures.style import INK, mark_x
from vitscope.scope.evidence import Alternative, Evidence

NAMES = {
    "valley": "valley",
    "otsu": "Otsu",
    "mixture": "mixture",
    "percentile": "percentile",
    "paper": "paper",
}
"""How an alternative is called on the page."""

HIGHEST, STEP = 0.87, 0.1
"""Where labels of alternatives start, as a share of the height, and how far they are apart."""

CLOSE = 0.01
"""An alternative nearer to the threshold than this share of the axis is not told apart from it."""

LABEL = 0.34
"""Share of the axis that a label takes."""


def mark_threshold(
    ax: Axes,
    threshold: float,
    text: str,
    evidence: Evidence | None,
    write: Callable[[float], str],
) -> None:
    """Draw ``threshold`` with its interval shaded, and every alternative that differs from it.

    The axis must have its limits. Thresholds off the axis are not drawn.

    Args:
        ax: the histogram's axes, linear or logarithmic in x.
        threshold: the one that was used; not drawn where it is NaN.
        text: beside its line.
        evidence: its interval and alternatives; None where they are not known.
        write: how a threshold is written.
    """
    limits = ax.get_xlim()
    alternatives: Sequence[Alternative] = ()
    if evidence is not None:
        low, high = evidence.interval.low, evidence.interval.high
        alternatives = evidence.alternatives
        if np.isfinite(low):
            ax.axvspan(max(low, limits[0]), min(high, limits[1]), color=INK, alpha=0.13, lw=0)
    place = _place(ax, threshold)
    if 0 <= place <= 1:
        mark_x(ax, threshold, text, left=place > 1 - LABEL, on_paper=True)
    for index, other in enumerate(told_apart(ax, threshold, alternatives)):
        at = _place(ax, other.threshold)
        # away from the threshold, where there is room
        left = at > LABEL if at < place else at > 1 - LABEL
        level = HIGHEST - STEP * index
        words = f"{NAMES[other.name]} {write(other.threshold)}"
        mark_x(ax, other.threshold, words, dashed=True, left=left, level=level, on_paper=True)
    ax.set_xlim(limits)


def told_apart(
    ax: Axes, threshold: float, alternatives: Sequence[Alternative]
) -> list[Alternative]:
    """Return the alternatives on the axis that are not where the threshold is, left to right."""
    chosen = _place(ax, threshold)
    places = [(_place(ax, other.threshold), other) for other in alternatives]
    shown = [
        (place, other)
        for place, other in places
        if 0 <= place <= 1 and not abs(place - chosen) < CLOSE
    ]
    return [other for _, other in sorted(shown, key=lambda pair: (pair[0], pair[1].name))]


def _place(ax: Axes, x: float) -> float:
    """Return where ``x`` is on the axis, 0 to 1 within its limits; NaN where it is nowhere."""
    low, high = ax.get_xlim()
    if ax.get_xscale() == "log":
        if not x > 0:
            return float("nan")
        low, high, x = np.log(low), np.log(high), np.log(x)
    return float((x - low) / (high - low))
