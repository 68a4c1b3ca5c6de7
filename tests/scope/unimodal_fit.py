"""The dip from its definition: the nearest unimodal distribution, by linear programming."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

Values = NDArray[np.float64]


def dip_by_definition(sample: Values) -> float:
    """Return min over modes and unimodal G of sup |F - G|.

    Some sample point is a mode of a nearest G: a mode within a gap can be moved to its end.
    """
    values, counts = np.unique(sample, return_counts=True)
    at = np.cumsum(counts) / sample.size
    before = np.concatenate([[0.0], at[:-1]])
    return min(_distance(values, before, at, mode) for mode in range(values.size))


def _distance(x: Values, before: Values, at: Values, mode: int) -> float:
    """Return the least distance of a G with this mode, at which alone it may jump.

    Unknowns: G at the values up to the mode (there its limit from the left), G from the mode on,
    and the distance.
    """
    k = x.size
    n = k + 2
    rows: list[Values] = []
    bounds: list[float] = []

    def at_most(terms: dict[int, float], bound: float) -> None:
        row = np.zeros(n)
        for unknown, factor in terms.items():
            row[unknown] += factor
        rows.append(row)
        bounds.append(bound)

    for unknown in range(k + 1):
        left = unknown <= mode
        i = unknown if left else unknown - 1
        upper = at[i] if not left and i == mode else before[i]
        lower = before[i] if left and i == mode else at[i]
        at_most({unknown: 1, n - 1: -1}, upper)
        at_most({unknown: -1, n - 1: -1}, -lower)
        if unknown < k:
            at_most({unknown: 1, unknown + 1: -1}, 0.0)
    for middle, sign, shift in [
        *((i, 1, 0) for i in range(1, mode)),
        *((i, -1, 1) for i in range(mode + 1, k - 1)),
    ]:
        first, second = 1 / (x[middle] - x[middle - 1]), 1 / (x[middle + 1] - x[middle])
        one = middle + shift
        at_most(
            {one: sign * (first + second), one - 1: -sign * first, one + 1: -sign * second}, 0.0
        )
    cost = np.zeros(n)
    cost[-1] = 1
    found = linprog(cost, A_ub=np.stack(rows), b_ub=bounds, bounds=[(0, 1)] * n, method="highs")
    return float(found.fun)
