"""Exact Earth Mover's Distance by POT, one pair at a time: the second opinion, and the fallback."""

from functools import lru_cache

import numpy as np

from vitscope.axes import Reals
from vitscope.errors import TransportError

MAX_PIVOTS = 10_000_000
"""Far above what any grid needs; reaching it is an error, never a silent answer."""


@lru_cache(maxsize=64)
def cell_distances(height: int, width: int) -> Reals:
    """Return Euclidean distances [H·W, H·W] between patch centres, in patches."""
    rows, columns = np.divmod(np.arange(height * width), width)
    distances = np.hypot(rows[:, None] - rows, columns[:, None] - columns)
    distances.flags.writeable = False
    return distances


def moving_mass(a: Reals, b: Reals) -> tuple[Reals, Reals] | None:
    """Return what of two maps [P], each normalised to sum 1, is left once common mass has stayed.

    None where a map is empty.
    """
    # by the maximum first: a sum of tiny or huge masses may under- or overflow
    peak_a, peak_b = a.max(initial=0.0), b.max(initial=0.0)
    if peak_a == 0 or peak_b == 0:
        return None
    a, b = a / peak_a, b / peak_b
    a, b = a / a.sum(), b / b.sum()
    common = np.minimum(a, b)
    return a - common, b - common


def pot_plan(supply: Reals, demand: Reals, cost: Reals) -> Reals:
    """Return a cheapest plan [m, n], summing to 1, between masses [m] and [n] of any total.

    Raises:
        TransportError: POT did not finish.
    """
    import ot  # noqa: PLC0415  seconds of imports, for the few pairs that come this far

    # what rounding left between the two sums would make the problem infeasible
    plan, log = ot.emd(
        supply / supply.sum(), demand / demand.sum(), cost, numItermax=MAX_PIVOTS, log=True
    )
    if log["warning"] is not None:
        raise TransportError(f"the network simplex gave up: {log['warning']}")
    return np.asarray(plan)


def pot_emd(a: Reals, b: Reals, distances: Reals) -> float:
    """Return the EMD of two maps [P] in patches, NaN where one is empty.

    Mass that both have in a cell stays there, since the cost is a metric; POT's network simplex
    moves the rest between the cells that have it.

    Args:
        a: finite, not negative, of any scale.
        b: the same.
        distances: [P, P] between cells.

    Raises:
        TransportError: POT did not finish.
    """
    moving = moving_mass(a, b)
    if moving is None:
        return float("nan")
    a, b = moving
    from_cells, to_cells = np.flatnonzero(a), np.flatnonzero(b)
    if from_cells.size == 0 or to_cells.size == 0:
        return 0.0
    cost = distances[np.ix_(from_cells, to_cells)]
    supply, demand = a[from_cells], b[to_cells]
    if from_cells.size == 1 or to_cells.size == 1:
        return float((cost * demand).sum() if from_cells.size == 1 else (cost[:, 0] * supply).sum())
    return float((pot_plan(supply, demand, cost) * cost).sum() * supply.sum())
