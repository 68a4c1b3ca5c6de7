"""A first plan for the transportation simplex: greedy, far-out cells first.

Arcs are taken in the order of c(i, j) - w·(mean cost of i + mean cost of j): short arcs, and among
these the ones of cells that are far from everything else and would otherwise be left with a long
way to go. Each arc ships all it can, so that it exhausts one of its ends.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitscope.compiled import compiled, compiled_inline, compiled_sum

PERIPHERY = 1.25
"""Weight w of the mean costs; 1 to 1.5 give about half the pivots of 0 on dense maps."""

GRAIN = 2.0**-43
"""Costs are multiples of this, so that sums of costs below 2¹⁰ are exact in float64."""

RANK_BITS = 30
"""Bits of an arc's rank and its sink together, in an int32 key."""

EXHAUSTED = np.int32(1 << RANK_BITS)
"""Above every key: set where a sink is full."""

NEVER = np.int64((1 << 62) - 1)


class Problem(NamedTuple):
    """m sources, n sinks; the arrays may be longer.

    Attributes:
        cost: float64, [m, n] row by row.
        supply: int64 [m]; demand: int64 [n], the same total, and no partial sums agree.
        supply_share, demand_share: float64 [m], [n]: the same, summing to 1.
    """

    cost: NDArray[np.float64]
    supply: NDArray[np.int64]
    demand: NDArray[np.int64]
    supply_share: NDArray[np.float64]
    demand_share: NDArray[np.float64]


class Arcs(NamedTuple):
    """The first plan: arc k ships flow[k] from source[k] to sink[k]; and its scratch arrays."""

    source: NDArray[np.int64]
    sink: NDArray[np.int64]
    flow: NDArray[np.int64]
    keys: NDArray[np.int32]
    nearest: NDArray[np.int64]
    exhausted: NDArray[np.int32]
    left_supply: NDArray[np.int64]
    left_demand: NDArray[np.int64]
    source_mean: NDArray[np.float64]
    sink_mean: NDArray[np.float64]


@compiled
def problem_of(n_sources: int, n_sinks: int, n_costs: int) -> Problem:
    """Return room for problems of at most this size."""
    return Problem(
        np.empty(n_costs, np.float64),
        np.empty(n_sources, np.int64),
        np.empty(n_sinks, np.int64),
        np.empty(n_sources, np.float64),
        np.empty(n_sinks, np.float64),
    )


@compiled
def arcs_of(n_sources: int, n_sinks: int, n_costs: int) -> Arcs:
    """Return room for the plans of such problems."""
    n_nodes = n_sources + n_sinks
    return Arcs(
        np.empty(n_nodes, np.int64),
        np.empty(n_nodes, np.int64),
        np.empty(n_nodes, np.int64),
        np.empty(n_costs, np.int32),
        np.empty(n_sources, np.int64),
        np.empty(n_sinks, np.int32),
        np.empty(n_sources, np.int64),
        np.empty(n_sinks, np.int64),
        np.empty(n_sources, np.float64),
        np.empty(n_sinks, np.float64),
    )


@compiled_sum
def _mean_costs(problem: Problem, arcs: Arcs, m: int, n: int) -> None:
    demand, sink_mean = problem.demand_share[:n], arcs.sink_mean[:n]
    sink_mean[:] = 0.0
    for i in range(m):
        row, share, mean = problem.cost[i * n : i * n + n], problem.supply_share[i], 0.0
        for j in range(n):
            mean += demand[j] * row[j]
        for j in range(n):
            sink_mean[j] += share * row[j]
        arcs.source_mean[i] = mean


@compiled
def _rank_arcs(problem: Problem, arcs: Arcs, m: int, n: int, longest: float) -> int:
    """Fill keys with (rank, sink) packed in an int32; return how many bits the sink takes."""
    bits = 0
    while (1 << bits) < n:
        bits += 1
    farthest_source, farthest_sink = 0.0, 0.0
    for i in range(m):
        farthest_source = max(farthest_source, arcs.source_mean[i])
    for j in range(n):
        farthest_sink = max(farthest_sink, arcs.sink_mean[j])
    offset = PERIPHERY * (farthest_source + farthest_sink)
    scale = ((1 << (RANK_BITS - bits)) - 1) / (offset + longest)
    sink_mean, shift = arcs.sink_mean[:n], np.int32(bits)
    for i in range(m):
        row, keys = problem.cost[i * n : i * n + n], arcs.keys[i * n : i * n + n]
        own = offset - PERIPHERY * arcs.source_mean[i]
        for j in range(n):
            rank = np.int32((row[j] + own - PERIPHERY * sink_mean[j]) * scale)
            keys[j] = (rank << shift) | np.int32(j)
    return bits


@compiled_inline
def _nearest(keys: NDArray[np.int32], exhausted: NDArray[np.int32], i: int, n: int) -> np.int64:
    """Return row i's lowest key with a sink that is not full, and the row itself, packed."""
    row, lowest = keys[i * n : i * n + n], np.int32(2147483647)
    for j in range(n):
        lowest = min(lowest, np.int32(row[j] | exhausted[j]))
    return (np.int64(lowest) << 32) | i


@compiled
def greedy_plan(problem: Problem, arcs: Arcs, m: int, n: int, longest: float) -> None:
    """Fill arcs with m + n - 1 arcs that form a spanning tree, all flows positive.

    ``longest`` is at least the largest cost. The tree is spanning since no arc exhausts both its
    ends before the last one: no partial sums of supply and demand agree.
    """
    _mean_costs(problem, arcs, m, n)
    sink_mask = (1 << _rank_arcs(problem, arcs, m, n, longest)) - 1
    exhausted, nearest = arcs.exhausted[:n], arcs.nearest[:m]
    exhausted[:] = 0
    for j in range(n):
        arcs.left_demand[j] = problem.demand[j]
    for i in range(m):
        arcs.left_supply[i] = problem.supply[i]
        nearest[i] = _nearest(arcs.keys, exhausted, i, n)
    k = 0
    while k < m + n - 1:
        lowest = NEVER
        for candidate in nearest:
            lowest = min(lowest, candidate)
        i, j = int(lowest & 0xFFFFFFFF), int((lowest >> 32) & sink_mask)
        # nothing moves where another source has filled the sink since: no arc, but a new nearest
        supply, demand = arcs.left_supply[i], arcs.left_demand[j]
        moved = min(supply, demand)
        arcs.source[k], arcs.sink[k], arcs.flow[k] = i, j, moved
        arcs.left_supply[i], arcs.left_demand[j] = supply - moved, demand - moved
        k += moved > 0
        if supply < demand:
            nearest[i] = NEVER
        else:
            exhausted[j] = EXHAUSTED
            nearest[i] = _nearest(arcs.keys, exhausted, i, n)
