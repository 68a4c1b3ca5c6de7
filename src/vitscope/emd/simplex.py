"""The transportation problem solved exactly: a network simplex on a rooted spanning tree.

Supplies and demands are integers perturbed so that no partial sums agree, and costs are multiples
of a grain: flows and potentials are exact, every pivot lowers the cost, and none can cycle.
Nodes are the sinks 0 … n - 1, then the sources n … n + m - 1. Potentials p satisfy
c(i, j) = p(i) - p(j) on the tree; elsewhere c(i, j) - p(i) + p(j) is an arc's reduced cost.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitscope.compiled import compiled, compiled_inline
from vitscope.emd.simplex_start import Arcs, Problem

TOLERANCE = 2.0**-38
"""A reduced cost above minus this is no gain, in patches: costs are rounded to 2⁻⁴³."""

CERTIFIED = 2.0**-37
"""How far from optimal a certified plan can be, in patches per unit of mass."""

RESOLUTION = 2.0**20
"""Reduced costs of a row are compared in steps of 1 / this, to pick the arc that enters."""

COLUMN_BITS = 24
"""Bits of a sink in the packed comparison."""

Nodes = NDArray[np.uint32]


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

    parent: Nodes
    depth: NDArray[np.int32]
    after: Nodes
    before: Nodes
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
        sink = _entering(cost, potential, potential[source] - TOLERANCE)
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
