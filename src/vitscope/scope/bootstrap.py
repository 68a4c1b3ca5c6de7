"""How far a figure moves when the sample is drawn again: percentile bootstrap intervals.

B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13. What depends on
one another is drawn together: all tokens of an image, or all images' weights for every figure.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vitscope.axes import Reals
from vitscope.draws import generator
from vitscope.intervals import LEVEL
from vitscope.scope.modes import Binned

N_DRAWS = 1000
"""Bootstrap draws of every interval."""

DRAWS_AT_ONCE = 100
"""Resamples held in memory together."""


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


def image_weights(n_images: int, seed: int, purpose: str) -> Iterator[Reals]:
    """Yield how often each image is drawn, [draws, n_images], until there are ``N_DRAWS``."""
    random = generator(seed, "bootstrap", purpose)
    for n in _blocks():
        yield random.multinomial(n_images, np.full(n_images, 1 / n_images), n).astype(np.float64)


def percentile_ends(draws: Reals) -> tuple[Reals, Reals]:
    """Return the ends of the percentile intervals of ``draws`` [n, ...], over what is not NaN.

    NaN where no draw has a value.
    """
    found = np.isfinite(draws)
    empty = ~found.any(0)
    # what has no value has no quantile to warn of
    known = np.where(found, draws, np.where(empty, 0.0, np.nan))
    ends = np.nanquantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    low, high = np.where(empty, np.nan, ends)
    return low, high


def interval_of(draws: Reals) -> Interval:
    """Return the percentile interval of ``draws`` [n], of those that are not NaN."""
    low, high = percentile_ends(draws)
    return Interval(float(low), float(high), float(np.isfinite(draws).mean()), draws.size)


def effective_size(per_image: Binned) -> float:
    """Return how many independent values know F as well as these, which come image by image.

    N over the design effect (Kish, "Survey Sampling", 1965): the variance of F̂ between images over
    what independent values would have, both summed over F's nine deciles. At most N.

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
    # F̂ = Σ below / Σ size is a ratio of sums over images: to first order it varies as the mean of
    # the residuals below - F·size does
    residual = below - per_image.size[:, None] * share
    clustered = (residual**2).sum() * n_images / (n_images - 1) / size
    independent = (share * (1 - share)).sum()
    return float(size / max(clustered / independent, 1.0)) if independent > 0 else size


def _blocks() -> Iterator[int]:
    for done in range(0, N_DRAWS, DRAWS_AT_ONCE):
        yield min(DRAWS_AT_ONCE, N_DRAWS - done)
