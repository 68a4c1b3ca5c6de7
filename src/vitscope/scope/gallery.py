"""Which features the gallery shows: chosen by a rule over each group's CDS range, not by eye."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitscope.scope.cds import FeatureScores
from vitscope.scope.partition import Partition

PER_GROUP = 9
"""Features shown of each group."""

FEWEST_PAIRS = 3
"""Below this a mean over pairs says too little, however few exemplars were asked for."""


@dataclass(frozen=True)
class GalleryChoice:
    """The features to show, and the rule they were chosen by.

    Attributes:
        low: low-CDS features, CDS ascending; at most ``per_group``.
        high: high-CDS features, CDS ascending; at most ``per_group``.
        n_low: low-CDS features with enough pairs to be chosen.
        n_high: high-CDS features with enough pairs to be chosen.
        min_pairs: what «enough» is.
        per_group: features wanted of each group.
    """

    low: tuple[int, ...]
    high: tuple[int, ...]
    n_low: int
    n_high: int
    min_pairs: int
    per_group: int

    @property
    def features(self) -> tuple[int, ...]:
        """All of them, low-CDS first."""
        return self.low + self.high


def minimum_pairs(top_images: int) -> int:
    """Return the fewest pairs that earn a place: half of the exemplars asked for, at least 3."""
    return max(FEWEST_PAIRS, math.ceil(top_images / 2))


def choose_gallery(
    scores: FeatureScores, partition: Partition, min_pairs: int, n: int = PER_GROUP
) -> GalleryChoice:
    """Choose ``n`` features of each group, from its lowest CDS to its highest.

    A group's features with at least ``min_pairs`` pairs are sorted by CDS (then by index), and
    those at evenly spaced ranks are taken, the two ends included.
    """
    low, n_low = _spread(scores, partition.low, min_pairs, n)
    high, n_high = _spread(scores, partition.high, min_pairs, n)
    return GalleryChoice(low, high, n_low, n_high, min_pairs, n)


def _spread(
    scores: FeatureScores, group: NDArray[np.int64], min_pairs: int, n: int
) -> tuple[tuple[int, ...], int]:
    enough = (scores.n_pairs[group] >= min_pairs) & np.isfinite(scores.cds[group])
    eligible = group[enough]
    ordered = eligible[np.lexsort((eligible, scores.cds[eligible]))]
    if ordered.size > n:
        ranks = np.round(np.linspace(0, ordered.size - 1, n)).astype(np.int64)
        ordered = ordered[ranks]
    return tuple(int(feature) for feature in ordered), int(eligible.size)
