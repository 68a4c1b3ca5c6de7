"""How often a pair is missed, and why, by how strongly the feature fires on it.

A pair is missed where the feature fires on the shared content in one view alone. Weak features
cross their threshold at the least change of context, which says little of what they stand for.
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from vitscope.figures.style import (
    BULK,
    HIGH,
    INK,
    LOW,
    SMALL_PT,
    add_legend,
    label_axes,
    new_panel,
    say_empty,
)
from vitscope.intervals import wilson_interval
from vitscope.scope.pairs import MISS_KINDS, MissKind, PairScores

STRENGTHS = (1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 8.0)
"""Lower ends of the bins, in thresholds; the last has no upper end."""

_COLOURS: dict[MissKind, str] = {"flicker": BULK, "border": LOW, "departure": HIGH}
_HATCHES: dict[MissKind, str] = {"flicker": "", "border": "//", "departure": ""}
"""So that colour alone decides nothing."""


@dataclass(frozen=True)
class MissRates:
    """Misses by strength; arrays [bins].

    Attributes:
        n_pairs: with mass in a view, of this strength.
        missed: share of them that is missed, by kind, [kinds, bins]; NaN without pairs.
    """

    n_pairs: NDArray[np.int64]
    missed: NDArray[np.float64]


def miss_rates(pairs: PairScores) -> MissRates:
    """Count misses by strength, which is how far the feature exceeds its threshold.

    Strength is that of the stronger view: the other decides whether the pair is missed. Pairs of an
    SAE without thresholds have none, and are not counted.
    """
    strength = pairs.strength
    fires = (pairs.kept | pairs.missed) & np.isfinite(strength) & ~pairs.untold
    # a feature fires from 1 on, but for the last digit of a division
    at = np.searchsorted(STRENGTHS, np.maximum(strength, 1.0), side="right") - 1
    n_bins = len(STRENGTHS)
    n = np.bincount(at[fires], minlength=n_bins)
    misses = pairs.misses
    counts = [np.bincount(at[fires & misses[kind]], minlength=n_bins) for kind in MISS_KINDS]
    with np.errstate(invalid="ignore"):
        return MissRates(n, np.stack(counts) / n)


def plot_misses(pairs: PairScores) -> Figure:
    """Draw the share of missed pairs by strength, stacked by kind, with Wilson's 95 %."""
    rates, panel = miss_rates(pairs), new_panel(2.6)
    ax = panel.axes[0]
    label_axes(ax, x="activation in the stronger view, in thresholds", y="pairs missed")
    if rates.n_pairs.sum() == 0:
        say_empty(ax, "no pair of a feature with a threshold")
        return panel.figure
    places = np.arange(len(STRENGTHS))
    bottom = np.zeros(len(STRENGTHS))
    for kind, share in zip(MISS_KINDS, np.nan_to_num(rates.missed), strict=True):
        ax.bar(
            places, share, 0.8, bottom=bottom, label=kind,
            color=_COLOURS[kind], hatch=_HATCHES[kind], edgecolor="white", linewidth=0,
        )  # fmt: skip
        bottom += share
    for place, share, n in zip(places, bottom, rates.n_pairs.tolist(), strict=True):
        low, high = wilson_interval(float(share), n)
        ax.plot([place, place], [low, high], color=INK, lw=1.0)
        top = share if n == 0 else high
        ax.annotate(
            f"{n:,}" + ("" if place else " pairs"), (place, top), xytext=(0, 2),
            textcoords="offset points", ha="center", fontsize=SMALL_PT, color=INK,
        )  # fmt: skip
    ax.set_xticks(places - 0.5, [f"{low:g}" for low in STRENGTHS])
    ax.set_xlim(-0.5, len(STRENGTHS) - 0.5)
    ax.set_ylim(0, max(1.15 * float(bottom.max()), 0.05))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    add_legend(panel.figure, *ax.get_legend_handles_labels())
    return panel.figure
