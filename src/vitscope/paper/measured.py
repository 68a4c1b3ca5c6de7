"""A number of ours with its interval, and what that interval holds."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
"""Of every interval."""


@dataclass(frozen=True)
class Measured:
    """A number with a 95 % interval.

    Attributes:
        value: in this project's units; NaN where it is not defined.
        low: lower end; NaN where there is no interval.
        high: upper end.
        over: what the interval would change with: images, searches, features; empty without one.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    over: str = ""

    @property
    def has_interval(self) -> bool:
        """Whether both ends are known."""
        return math.isfinite(self.low) and math.isfinite(self.high)


def jackknife(value: float, left_out: NDArray[np.float64], over: str) -> Measured:
    """Return ``value`` with Student's interval from the values without each group of images.

    The standard error is √((g−1)/g · Σ(θ_i − θ̄)²), for g groups (Efron).

    Args:
        value: with all groups.
        left_out: without each in turn, [g].
        over: what the groups are.
    """
    known = left_out[np.isfinite(left_out)]
    n = known.size
    if n < 2 or n < left_out.size or not math.isfinite(value):
        return Measured(value)
    error = math.sqrt((n - 1) / n * float(((known - known.mean()) ** 2).sum()))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * error
    return Measured(value, value - half, value + half, over)


def of_proportion(share: float, n: int, over: str) -> Measured:
    """Return a share of ``n`` images with Wilson's interval."""
    if not (math.isfinite(share) and n > 0):
        return Measured(share)
    z = float(stats.norm.ppf((1 + LEVEL) / 2))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Measured(share, centre - half, centre + half, over)
