"""How far a threshold moves when the sample is drawn again: percentile bootstrap intervals."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitscope.draws import generator
from vitscope.scope.binned import Binned

N_DRAWS = 1000
"""Bootstrap draws of every interval."""

COVERAGE = 0.95
"""Of every interval, between the percentiles that leave as much on either side."""

DRAWS_AT_ONCE = 100
"""Resamples held in memory together."""

Values = NDArray[np.float64]
Estimator = Callable[[Binned], Values]
"""Thresholds of many resamples, [n_draws]; NaN where there is none."""


@dataclass(frozen=True)
class Interval:
    """A bootstrap interval.

    Attributes:
        low: its lower end; NaN without any draw that has a value.
        high: its upper end.
        found: share of the draws that have a value: the interval is of these alone.
        n_draws: draws in all.
    """

    low: float
    high: float
    found: float
    n_draws: int


def resampled(binned: Binned, seed: int, purpose: str) -> Iterator[Binned]:
    """Yield resamples of one sample of independent values, N drawn from N with replacement.

    Drawing values and counting them in bins is drawing the bins' counts: nothing is approximated.
    """
    random, size = generator(seed, "bootstrap", purpose), int(binned.size)
    shares = binned.counts / binned.counts.sum()
    for n in _blocks():
        counts = random.multinomial(size, shares, n)
        yield Binned(binned.low, binned.high, counts.astype(np.float64))


def resampled_images(binned: Binned, seed: int, purpose: str) -> Iterator[Binned]:
    """Yield resamples of images, each drawn with all its values: these depend on one another.

    Args:
        binned: counts of each image, [B, n_bins].
        seed: of the draws.
        purpose: key of the draws.
    """
    for weights in image_weights(len(binned.counts), seed, purpose):
        yield Binned(binned.low, binned.high, weights @ binned.counts)


def image_weights(n_images: int, seed: int, purpose: str) -> Iterator[Values]:
    """Yield how often each image is drawn, [draws, n_images], until there are ``N_DRAWS``."""
    random = generator(seed, "bootstrap", purpose)
    for n in _blocks():
        yield random.multinomial(n_images, np.full(n_images, 1 / n_images), n).astype(np.float64)


def interval_of(draws: Values) -> Interval:
    """Return the percentile interval of ``draws`` [n], of those that are not NaN."""
    found = draws[np.isfinite(draws)]
    if not found.size:
        return Interval(float("nan"), float("nan"), 0.0, draws.size)
    low, high = np.quantile(found, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(float(low), float(high), found.size / draws.size, draws.size)


def effective_size(per_image: Binned) -> float:
    """Return how many independent values know F as well as these, which come image by image.

    N over the design effect: the variance of F̂ between images (of a ratio, linearised) over what
    independent values would have, both summed over F's nine deciles. At most N.

    Args:
        per_image: counts of each image, [B, n_bins].
    """
    whole = Binned(per_image.low, per_image.high, per_image.counts.sum(0))
    n_images, size = len(per_image.counts), float(whole.size)
    if n_images < 2:
        return size
    reached = whole.counts.cumsum() / size
    bins = np.unique(np.searchsorted(reached, np.arange(1, 10) / 10))
    share = reached[bins]
    below = per_image.counts.cumsum(1)[:, bins]
    residual = below - per_image.size[:, None] * share
    clustered = (residual**2).sum() * n_images / (n_images - 1) / size
    independent = (share * (1 - share)).sum()
    return float(size / max(clustered / independent, 1.0)) if independent > 0 else size


def _blocks() -> Iterator[int]:
    for done in range(0, N_DRAWS, DRAWS_AT_ONCE):
        yield min(DRAWS_AT_ONCE, N_DRAWS - done)
