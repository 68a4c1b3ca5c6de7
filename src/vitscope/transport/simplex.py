"""The transportation problem solved exactly: a greedy first plan, then a network simplex.

The network simplex on a rooted spanning tree is Dantzig's, told as in Ahuja, Magnanti and Orlin,
"Network Flows", 1993, chapter 11: potentials, pricing, the cycle of an entering arc, preorder.
Supplies and demands are integers perturbed so that no partial sums agree (Orden, 1956; the
derivation is at ``_pose`` in ``batch.py``), and costs are multiples of a grain: flows and
potentials are exact, no arc of a tree is empty, every pivot lowers the cost, and none can cycle.
Nodes are the sinks 0 … n - 1, then the sources n … n + m - 1. Potentials p satisfy
c(i, j) = p(i) - p(j) on the tree; elsewhere c(i, j) - p(i) + p(j) is an arc's reduced cost.

The first plan takes arcs in the order of c(i, j) - w·(mean cost of i + mean cost of j): short arcs,
and among these the ones of cells that are far from everything else and would otherwise be left with
a long way to go. Each arc ships all it can, so that it exhausts one of its ends.
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

GAIN_TOLERANCE = 2.0**-38
"""A reduced cost above minus this is no gain, in patches: costs are rounded to 2⁻⁴³."""

CERTIFIED = 2.0**-37
"""How far from optimal a certified plan can be, in patches per unit of mass."""

RESOLUTION = 2.0**20
"""Reduced costs of a row are compared in steps of 1 / this, to pick the arc that enters."""

COLUMN_BITS = 24
"""Bits of a sink in the packed comparison."""

_Nodes = NDArray[np.uint32]


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


class Basis(NamedTuple):
    """The spanning tree, one entry a node; nodes in preorder form a circular list.

    Attributes:
        parent: the node above (the root's is no node).
        depth: arcs to the root.
        after, before: next and previous node in preorder, so that a subtree is a run of the list.
        flow: on the arc to the parent, whichever way it points.
        potential: in patches.
        head, link: scratch: the arcs at a node, as linked lists.
    """

    parent: _Nodes
    depth: NDArray[np.int32]
    after: _Nodes
    before: _Nodes
    flow: NDArray[np.int64]
    potential: NDArray[np.float64]
    head: NDArray[np.int64]
    link: NDArray[np.int64]


@compiled
def basis_of(n_nodes: int) -> Basis:
    """Return room for trees of at most ``n_nodes``."""
    return Basis(
        np.empty(n_nodes, np.uint32),
        np.empty(n_nodes, np.int32),
        np.empty(n_nodes, np.uint32),
        np.empty(n_nodes, np.uint32),
        np.empty(n_nodes, np.int64),
        np.empty(n_nodes, np.float64),
        np.empty(n_nodes, np.int64),
        np.empty(2 * n_nodes, np.int64),
    )


@compiled
def plant(tree: Basis, problem: Problem, arcs: Arcs, m: int, n: int) -> None:
    """Root the plan's arcs at node 0, and set preorder, depths, flows and potentials."""
    head, link = tree.head, tree.link
    head[: m + n] = -1
    for k in range(m + n - 1):
        i, j = n + arcs.source[k], arcs.sink[k]
        link[2 * k], head[i] = head[i], 2 * k
        link[2 * k + 1], head[j] = head[j], 2 * k + 1
    tree.parent[0], tree.depth[0], tree.potential[0] = m + n, 0, 0.0
    # a stack of open nodes, kept in the array of the list's predecessors until these are known
    pending, last, stack = 1, 0, tree.before
    stack[0] = 0
    for _ in range(m + n):
        pending -= 1
        node = np.int64(stack[pending])
        tree.after[last], last = node, node
        above, end = np.int64(tree.parent[node]), head[node]
        while end >= 0:
            k = end >> 1
            i, j = arcs.source[k], arcs.sink[k]
            other = j if end & 1 == 0 else n + i
            if other != above:
                tree.parent[other], tree.depth[other] = node, tree.depth[node] + 1
                cost = problem.cost[i * n + j]
                tree.flow[other] = arcs.flow[k]
                tree.potential[other] = tree.potential[node] + (-cost if node >= n else cost)
                stack[pending] = other
                pending += 1
            end = link[end]
    tree.after[last] = 0
    for node in range(m + n):
        tree.before[tree.after[node]] = node


@compiled_inline
def _entering(cost: NDArray[np.float64], potential: NDArray[np.float64], limit: float) -> int:
    """Return the sink with the lowest reduced cost of a row [n], -1 where none is a gain."""
    # written for the vector unit: a count, and a minimum of integers that carry their position
    n_gains = 0
    for j in range(len(cost)):
        n_gains += cost[j] + potential[j] < limit
    if n_gains == 0:
        return -1
    lowest = np.int64(0)
    for j in range(len(cost)):
        step = np.int64(np.floor((cost[j] + potential[j] - limit) * RESOLUTION))
        lowest = min(lowest, (step << COLUMN_BITS) | j)
    return int(lowest & ((1 << COLUMN_BITS) - 1))


@compiled_inline
def _push(tree: Basis, source: np.uint32, sink: np.uint32, n: np.uint32) -> tuple[np.uint32, bool]:
    """Send all that fits round the cycle of the arc source -> sink.

    Returns the node below the arc that is emptied, and whether it is on the source's side. The
    amount is that arc's flow, which stays in place for ``_regraft``.
    """
    parent, depth, flow = tree.parent, tree.depth, tree.flow
    a, b, leaving, on_source_side = source, sink, source, True
    amount = np.int64(9223372036854775807)
    while a != b:
        if depth[a] >= depth[b]:
            # arcs that point the other way round lose flow: up from a source, down to a sink
            if a >= n and flow[a] < amount:
                amount, leaving, on_source_side = flow[a], a, True
            a = parent[a]
        else:
            if b < n and flow[b] < amount:
                amount, leaving, on_source_side = flow[b], b, False
            b = parent[b]
    join = a
    for start in (source, sink):
        node, change = start, -amount
        while node != join:
            flow[node] += change
            change = -change
            node = parent[node]
    flow[leaving] = amount
    return leaving, on_source_side


@compiled_inline
def _regraft(tree: Basis, top: np.uint32, inner: np.uint32, outer: np.uint32, shift: float) -> None:
    """Cut the subtree of ``top`` off, re-root it at ``inner``, and hang it below ``outer``.

    Its potentials rise by ``shift``. The path from inner to top is turned round node by node, each
    taking along the part of its subtree that no earlier one took, as one run of the preorder.
    """
    parent, depth, after, before = tree.parent, tree.depth, tree.after, tree.before
    flow, potential = tree.flow, tree.potential
    node, above, tail, carried = inner, outer, outer, flow[top]
    level = depth[outer] + 1
    while True:
        old_level = depth[node]
        rise, last = level - old_level, node
        while True:
            potential[last] += shift
            depth[last] += rise
            following = after[last]
            if depth[following] <= old_level:
                break
            last = following
        preceding = before[node]
        after[preceding], before[following] = following, preceding
        following = after[tail]
        after[tail], before[node] = node, tail
        after[last], before[following] = following, last
        tail = last
        old_parent = parent[node]
        parent[node] = above
        carried, flow[node] = flow[node], carried
        if node == top:
            break
        node, above, level = old_parent, node, level + 1


@compiled
def optimise(tree: Basis, problem: Problem, m: int, n: int, most_pivots: int) -> int:
    """Pivot until no arc is a gain; return how many pivots, -1 where they are too many.

    Rows are priced in turn, and a row again until it has no gain left.
    """
    row, n_clean, n_pivots = 0, 0, 0
    potential = tree.potential
    while n_clean < m:
        source = n + row
        cost = problem.cost[row * n : row * n + n]
        sink = _entering(cost, potential, potential[source] - GAIN_TOLERANCE)
        if sink < 0:
            n_clean += 1
            row = row + 1 if row + 1 < m else 0
            continue
        if n_pivots == most_pivots:
            return -1
        n_clean, n_pivots = 0, n_pivots + 1
        reduced = cost[sink] - potential[source] + potential[sink]
        above, below = np.uint32(source), np.uint32(sink)
        leaving, on_source_side = _push(tree, above, below, np.uint32(n))
        if on_source_side:
            _regraft(tree, leaving, above, below, reduced)
        else:
            _regraft(tree, leaving, below, above, -reduced)
    return n_pivots


@compiled
def plan_cost(tree: Basis, problem: Problem, m: int, n: int) -> float:
    """Return the mean cost of the plan; NaN unless it is certified to be feasible and optimal.

    Feasible: no flow is negative and every marginal is met to the unit. Optimal: no reduced cost is
    negative, and those of the tree are zero.
    """
    balance = tree.head
    balance[: m + n] = 0
    total, shipped, wrong = 0.0, 0.0, 0
    for node in range(1, m + n):
        other = np.int64(tree.parent[node])
        i, j = max(node, other), min(node, other)
        flow, cost = tree.flow[node], problem.cost[(i - n) * n + j]
        balance[i] += flow
        balance[j] += flow
        total += flow * cost
        shipped += flow
        slack = cost - tree.potential[i] + tree.potential[j]
        wrong += (flow < 0) + (abs(slack) > CERTIFIED)
    for j in range(n):
        wrong += balance[j] != problem.demand[j]
    for i in range(m):
        wrong += balance[n + i] != problem.supply[i]
        row, limit = problem.cost[i * n : i * n + n], tree.potential[n + i] - CERTIFIED
        for j in range(n):
            wrong += not (row[j] + tree.potential[j] >= limit)
    return total / shipped if wrong == 0 else np.nan
