"""Attention instability over a set of images: means, ratios, and how sure they are.

Images are resampled by a Poisson bootstrap (Chamandy, Muralidharan, Najmi and Naidu, "Estimating
uncertainty for massive data streams", 2012): in every resample an image counts as often as a
Poisson draw of mean 1 says, and that draw depends on the seed and the image alone. The sums can
therefore be carried from image to image, in whatever pieces, and nothing is kept of an image.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitscope.axes import Reals
from vitscope.draws import generator
from vitscope.scope.bootstrap import N_DRAWS, percentile_ends
from vitscope.scope.cds import ratio_or_nan
from vitscope.scope.instability import (
    ATTENTION_READINGS,
    COMPARED_GROUPS,
    INSTABILITY_SHAPE,
    MEMBERSHIPS,
)
from vitscope.scope.views import Overlap


@dataclass(frozen=True)
class GroupInstability:
    """One group of tokens over a set of images; distances in patches.

    Attributes:
        mean: mean over images of the per-image mean; NaN without a token of the group.
        error: standard error of that mean over images; NaN with fewer than two.
        low: lower end of its 95 % interval; NaN with fewer than two images.
        high: upper end.
        n_images: images that have a token of the group in the overlap.
        n_maps: distances that entered (tokens times heads, or heads).
        n_missed: of these, maps empty in exactly one view, which count D_grid.
        pooled: mean over all distances, images weighted by how many they have.
        pooled_low: lower end of its 95 % interval.
        pooled_high: upper end.
    """

    mean: float
    error: float
    low: float
    high: float
    n_images: int
    n_maps: int
    n_missed: int
    pooled: float
    pooled_low: float
    pooled_high: float


@dataclass(frozen=True)
class ReadingInstability:
    """Both groups at one shift under one reading and one membership (protocol, section 7).

    Attributes:
        shift: s, in patches.
        membership: when a token is an outlier: ``either``, ``first``, ``both``.
        reading: the maps compared: ``query``, ``received``, ``key``.
        diameter: D_grid of that shift, in patches.
        outlier: outlier tokens.
        other: the others.
        ratio: D̄ of outliers over D̄ of others; NaN where either is undefined or the second is 0.
        ratio_low: lower end of its 95 % interval, both means resampled over the same images.
        ratio_high: upper end.
    """

    shift: int
    membership: str
    reading: str
    diameter: float
    outlier: GroupInstability
    other: GroupInstability
    ratio: float
    ratio_low: float
    ratio_high: float


class InstabilitySums:
    """Everything that means, errors and intervals are made of, in memory that images do not grow.

    Args:
        n_shifts: S; figures have the axes (shift, reading, membership, group).
        seed: of the bootstrap.
    """

    def __init__(self, n_shifts: int, seed: int) -> None:
        self._shape, self._seed = (n_shifts, *INSTABILITY_SHAPE), seed
        n_columns = int(np.prod(self._shape))
        self._n_images, self._n_maps, self._n_missed = np.zeros((3, n_columns), np.int64)
        self._mean, self._spread, self._total = np.zeros((3, n_columns))
        self._of_images, self._of_maps = np.zeros((2, 2, N_DRAWS, n_columns))

    def add(
        self,
        image_ids: Sequence[str],
        emd: Reals,
        n_maps: NDArray[np.int64],
        n_missed: NDArray[np.int64],
    ) -> None:
        """Take in some images: arrays [n, S, 3, 3, 2] as of ``ImageInstability``."""
        n = len(image_ids)
        flat, maps = emd.reshape(n, -1), n_maps.reshape(n, -1)
        has = np.isfinite(flat)
        values = np.where(has, flat, 0.0)
        self._add_moments(values, has)
        self._n_maps += maps.sum(0)
        self._n_missed += n_missed.reshape(n, -1).sum(0)
        self._total += (values * maps).sum(0)
        weights = self._weights(image_ids)
        self._of_images += np.stack([weights @ values, weights @ has.astype(np.float64)])
        self._of_maps += np.stack([weights @ (values * maps), weights @ maps.astype(np.float64)])

    def summarise(self, overlaps: Sequence[Overlap]) -> tuple[ReadingInstability, ...]:
        """Return a row for every shift, membership and reading, in that order."""
        rows: list[ReadingInstability] = []
        groups = self._groups()
        means = ratio_or_nan(self._of_images[0], self._of_images[1])
        for s, overlap in enumerate(overlaps):
            for m, membership in enumerate(MEMBERSHIPS):
                for r, reading in enumerate(ATTENTION_READINGS):
                    columns = [self._column(s, r, m, g) for g in range(len(COMPARED_GROUPS))]
                    outlier, other = (groups[column] for column in columns)
                    resampled = ratio_or_nan(means[:, columns[0]], means[:, columns[1]])
                    known = min(outlier.n_images, other.n_images)
                    low, high = _ends(resampled[:, None], np.asarray([known]))
                    rows.append(
                        ReadingInstability(
                            shift=overlap.shift,
                            membership=membership,
                            reading=reading,
                            diameter=overlap.diameter,
                            outlier=outlier,
                            other=other,
                            ratio=outlier.mean / other.mean if other.mean > 0 else float("nan"),
                            ratio_low=float(low[0]),
                            ratio_high=float(high[0]),
                        )
                    )
        return tuple(rows)

    def _column(self, *place: int) -> int:
        return int(np.ravel_multi_index(place, self._shape))

    def _add_moments(self, values: Reals, has: NDArray[np.bool_]) -> None:
        # pieces are merged by their centred sums (Chan, Golub, LeVeque): Σx² would lose digits
        n_new = has.sum(0)
        mean_new = values.sum(0) / np.maximum(n_new, 1)
        spread_new = np.where(has, (values - mean_new) ** 2, 0.0).sum(0)
        n, step = self._n_images + n_new, mean_new - self._mean
        share = n_new / np.maximum(n, 1)
        self._spread += spread_new + step**2 * self._n_images * share
        self._mean += step * share
        self._n_images = n

    def _weights(self, image_ids: Iterable[str]) -> Reals:
        """Return how often each image counts in every resample, [N_DRAWS, n]."""
        draws = [
            generator(self._seed, "bootstrap", image_id).poisson(1.0, N_DRAWS)
            for image_id in image_ids
        ]
        return np.asarray(draws, dtype=np.float64).T

    def _groups(self) -> list[GroupInstability]:
        """Return every column as a record."""
        n = self._n_images
        mean = np.where(n > 0, self._mean, np.nan)
        variance = ratio_or_nan(self._spread, (n - 1).astype(np.float64)) / np.maximum(n, 1)
        low, high = _ends(ratio_or_nan(*self._of_images), n)
        pooled = ratio_or_nan(self._total, self._n_maps.astype(np.float64))
        pooled_low, pooled_high = _ends(ratio_or_nan(*self._of_maps), n)
        columns = zip(
            *(mean.tolist(), np.sqrt(variance).tolist(), low.tolist(), high.tolist()),
            *(n.tolist(), self._n_maps.tolist(), self._n_missed.tolist()),
            *(pooled.tolist(), pooled_low.tolist(), pooled_high.tolist()),
            strict=True,
        )
        return [GroupInstability(*column) for column in columns]


def _ends(resampled: Reals, n_images: NDArray[np.int64]) -> tuple[Reals, Reals]:
    """Return the ends [K] of the percentile intervals of columns [N_DRAWS, K].

    A resample that holds no image of a group says nothing of it; one image says nothing of others.
    """
    several = n_images > 1
    low, high = (np.where(several, end, np.nan) for end in percentile_ends(resampled))
    return low, high
