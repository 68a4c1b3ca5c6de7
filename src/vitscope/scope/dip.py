"""Has a sample more than one mode? The dip test: how far it is from the nearest single mode.

J. A. Hartigan and P. M. Hartigan, "The dip test of unimodality", Annals of Statistics 13, 1985. The
dip is the least distance sup |F - G| between the sample's distribution function F and any G that is
convex up to some mode and concave after it. Unlike Silverman's test it knows no bandwidth.

Written here because the packaged implementations are under the GPL.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitscope.scope.dip_null import LEVELS, QUANTILES, SIZES

MAX_STEPS = 65_536
"""Above so many distinct values F is read at evenly spaced ranks: the dip then errs by at most
half the reciprocal of this number."""

FEWEST = 4
"""Three values always have the same dip."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Dip:
    """The dip of a sample.

    Attributes:
        statistic: the dip, between 1/(2n) and 1/4; NaN with fewer than 4 values.
        p_value: how often as many values of the uniform distribution, the unimodal one that dips
            most, dip as far; never below ``SMALLEST_P``. NaN where the statistic is.
    """

    statistic: float
    p_value: float


SMALLEST_P = round(float(1 - LEVELS[-1]), 10)
"""Smallest p-value that the simulated null resolves."""


def dip_test(sample: Values, *, n_effective: float | None = None) -> Dip:
    """Test ``sample`` [N] for a single mode.

    Args:
        sample: finite values, in any order; ties are allowed and taken as what they are.
        n_effective: the number of independent values that know as much as the sample, where its
            values depend on one another; N by default.
    """
    if sample.size < FEWEST:
        return Dip(float("nan"), float("nan"))
    values, counts = np.unique(sample, return_counts=True)
    at = np.cumsum(counts) / sample.size
    before = np.concatenate([[0.0], at[:-1]])
    if values.size > MAX_STEPS:
        values, before, at = _thinned(values, at)
    statistic = dip_of_steps(values, before, at)
    return Dip(statistic, dip_p_value(statistic, n_effective or sample.size))


def dip_p_value(statistic: float, n: float) -> float:
    """Return the p-value of a dip of ``n`` independent values.

    √n·dip is compared with its simulated quantiles under the uniform distribution, interpolated
    between sample sizes in 1/√n; beyond the largest size √n·dip hardly changes any more.
    """
    place = np.interp(-1 / np.sqrt(max(n, FEWEST)), -1 / np.sqrt(SIZES), np.arange(SIZES.size))
    row = min(int(place), SIZES.size - 2)
    quantiles = QUANTILES[row] + (place - row) * (QUANTILES[row + 1] - QUANTILES[row])
    least = 0.5 / np.sqrt(n)  # the dip of evenly spaced values
    scaled = np.concatenate([[min(least, quantiles[0])], quantiles])
    # just below: where several levels share a quantile, the lowest is meant
    observed = statistic * np.sqrt(n) * (1 - 1e-4)
    level = np.interp(observed, scaled, np.concatenate([[0.0], LEVELS]))
    return max(float(1 - level), SMALLEST_P)


def dip_of_steps(values: Values, before: Values, at: Values) -> float:
    """Return the dip of a step function.

    The interval that must hold the mode is narrowed from both ends. Within it, the largest gap
    between the convex minorant and the concave majorant of F says where the narrower one lies;
    outside it, F's distance from the two curves is a lower bound of the dip (times two).

    Args:
        values: where the steps are, ascending, [n].
        before: the function's value before each step, [n].
        at: its value at and after each step, [n].
    """
    low, high, twice = 0, values.size - 1, 0.0
    while low < high:
        convex = hull(values, before, low, high, 1.0)
        concave = hull(values, at, low, high, -1.0)
        inside = values[low : high + 1]
        under = np.interp(inside, values[convex], before[convex])
        over = np.interp(inside, values[concave], at[concave])
        at_convex = over[convex - low] - before[convex]
        at_concave = at[concave] - under[concave - low]
        if at_convex.max() >= at_concave.max():
            gap, left = at_convex.max(), int(convex[np.argmax(at_convex)])
            right = int(concave[np.searchsorted(concave, left)])
        else:
            gap, right = at_concave.max(), int(concave[np.argmax(at_concave)])
            left = int(convex[np.searchsorted(convex, right, side="right") - 1])
        if gap <= twice:
            break
        if left > low:
            twice = max(twice, (at[low:left] - under[: left - low]).max())
        if right < high:
            twice = max(twice, (over[right - low + 1 :] - before[right + 1 : high + 1]).max())
        if left == low and right == high:
            break
        low, high = left, right
    return float(twice / 2)


def hull(x: Values, y: Values, low: int, high: int, side: float) -> NDArray[np.int64]:
    """Return the indices, ascending, of the convex minorant's corners among points low … high.

    With ``side`` = -1 those of the concave majorant.
    """
    kept = np.empty(high - low + 1, np.int64)
    n = 0
    for i in range(low, high + 1):
        while n > 1:
            first, last = kept[n - 2], kept[n - 1]
            rise = (y[last] - y[first]) * (x[i] - x[first])
            if side * (rise - (y[i] - y[first]) * (x[last] - x[first])) < 0:
                break
            n -= 1
        kept[n] = i
        n += 1
    return kept[:n]


def _thinned(values: Values, at: Values) -> tuple[Values, Values, Values]:
    """Read F at ``MAX_STEPS`` evenly spaced ranks, the two ends included."""
    wanted = (np.arange(MAX_STEPS) + 1) / MAX_STEPS
    rows = np.unique(np.minimum(np.searchsorted(at, wanted - 1e-12), values.size - 1))
    kept = at[rows]
    return values[rows], np.concatenate([[0.0], kept[:-1]]), kept
