"""Confidence intervals that several places need, all at one level."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
"""Of every interval: the share of repetitions that would hold the true value."""


@dataclass(frozen=True)
class MeanInterval:
    """A mean with both ends of its interval; NaN where they are not defined."""

    mean: float
    low: float = math.nan
    high: float = math.nan


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
    half = _student_half(float(stats.sem(known)), known.size)
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
    half = _student_half(error, g)
    return value - half, value + half


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Return Wilson's interval of a share of ``n`` independent cases; NaN where there are none.

    The shares p with |share − p| ≤ z·√(p(1−p)/n) (Wilson 1927): unlike share ± z·s it stays within
    0 and 1, and has a width where the share is 0 or 1.
    """
    if not (math.isfinite(share) and n > 0):
        return math.nan, math.nan
    z = float(stats.norm.ppf((1 + LEVEL) / 2))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return centre - half, centre + half


def _student_half(error: float, n: int) -> float:
    """Return half the width for a standard error with n - 1 degrees of freedom."""
    return float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * error
