"""Confidence intervals that several places need, all at one level."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

LEVEL = 0.95
"""Of every interval: the share of repetitions that would hold the true value."""


@dataclass(frozen=True)
class MeanInterval:
    """A mean with both ends of its interval; NaN where they are not defined."""

    mean: float
    low: float = math.nan
    high: float = math.nan


def student_quantile(degrees: ArrayLike) -> NDArray[np.float64]:
    """Return how many standard errors half an interval is wide, for each of ``degrees`` of freedom.

    From ``scipy.special``: ``scipy.stats`` has the same function and takes a second to import.
    """
    return np.asarray(special.stdtrit(degrees, (1 + LEVEL) / 2))


def student_interval(values: Sequence[float]) -> MeanInterval:
    """Return the mean of independent ``values`` and Student's interval; NaN among them is left out.

    mean ± t_{n-1} · s / √n; one value has no interval, none has no mean.
    """
    known = np.asarray([value for value in values if math.isfinite(value)])
    if known.size == 0:
        return MeanInterval(math.nan)
    mean = float(known.mean())
    if known.size < 2:
        return MeanInterval(mean)
    error = float(known.std(ddof=1)) / math.sqrt(known.size)
    half = error * float(student_quantile(known.size - 1))
    return MeanInterval(mean, mean - half, mean + half)


def jackknife_interval(value: float, left_out: NDArray[np.float64]) -> tuple[float, float]:
    """Return Student's interval of a statistic from its values without each group in turn.

    The standard error is √((g−1)/g · Σ(θ_i − θ̄)²), for g groups (Efron 1982, The Jackknife).

    Args:
        value: of all groups together.
        left_out: without each group, [g].

    Returns:
        both ends; NaN where there are fewer than two groups or a value is not finite.
    """
    g = left_out.size
    if g < 2 or not np.isfinite(left_out).all() or not math.isfinite(value):
        return math.nan, math.nan
    error = math.sqrt((g - 1) / g * float(((left_out - left_out.mean()) ** 2).sum()))
    half = error * float(student_quantile(g - 1))
    return value - half, value + half


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Return Wilson's interval of a share of ``n`` independent cases; NaN where there are none.

    The shares p with |share − p| ≤ z·√(p(1−p)/n) (Wilson 1927): unlike share ± z·s it stays within
    0 and 1, and has a width where the share is 0 or 1.
    """
    if not (math.isfinite(share) and n > 0):
        return math.nan, math.nan
    z = float(special.ndtri((1 + LEVEL) / 2))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return centre - half, centre + half
