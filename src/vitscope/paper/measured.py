"""A number of ours with its interval, and what that interval holds."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitscope.intervals import jackknife_interval, wilson_interval


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

    Args:
        value: with all groups.
        left_out: without each in turn, [g].
        over: what the groups are.
    """
    low, high = jackknife_interval(value, left_out)
    return Measured(value, low, high, over if math.isfinite(low) else "")


def of_proportion(share: float, n: int, over: str) -> Measured:
    """Return a share of ``n`` images with Wilson's interval."""
    low, high = wilson_interval(share, n)
    return Measured(share, low, high, over if math.isfinite(low) else "")
