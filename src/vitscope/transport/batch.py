"""A batch of exact Earth Mover's Distances in one compiled call, with no Python per pair.

Each pair: read, checked and normalised; what its maps share cell by cell cancelled; a closed form
where one side is left with a single cell or none, else the transportation simplex.
"""

from typing import NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from vitscope.axes import Reals
from vitscope.compiled import compiled, compiled_entry
from vitscope.transport.simplex import (
    GRAIN,
    Problem,
    arcs_of,
    basis_of,
    greedy_plan,
    optimise,
    plan_cost,
    plant,
    problem_of,
)

SOLVED, BAD_FIRST, BAD_SECOND, UNSOLVED = range(4)
"""Outcome of a pair: a distance, an impossible mass in a map, or no certified optimum."""

_TOTAL_BITS = 60
"""Masses become integers that sum to about 2⁶⁰, the perturbation of their last bits included."""

_NOISE = 1e-15
"""Two shares of mass closer than this, relative to the larger, differ by rounding alone."""


class _Maps(NamedTuple):
    """One side of a batch: dense maps [N, H·W], or none (size 0) and sparse ones.

    Map k has values[offsets[k] : offsets[k + 1]] in cells indices[offsets[k] : offsets[k + 1]].
    """

    dense: Reals
    indices: NDArray[np.int32]
    values: Reals
    offsets: NDArray[np.int64]


class _Side(NamedTuple):
    """One map of a pair: what was read, its share of mass by cell, and what is left of it.

    Attributes:
        cells, values: the entries that are not zero.
        share: [H·W], zero between pairs.
        left: cells with more mass than in the other map, as places of the grid.
        surplus: how much more, in the same order.
    """

    cells: NDArray[np.int64]
    values: Reals
    share: Reals
    left: NDArray[np.int64]
    surplus: Reals


@compiled
def _most_entries(maps: _Maps, n_cells: int) -> int:
    """Return the most entries that a map of the batch can have."""
    if maps.dense.size > 0:
        return n_cells
    most = 0
    for row in range(len(maps.offsets) - 1):
        most = max(most, maps.offsets[row + 1] - maps.offsets[row])
    return most


@compiled
def _side_of(n_entries: int, n_cells: int) -> _Side:
    """Return room for maps of at most ``n_entries``."""
    return _Side(
        np.empty(n_entries, np.int64),
        np.empty(n_entries, np.float64),
        np.zeros(n_cells, np.float64),
        np.empty(n_entries, np.int64),
        np.empty(n_entries, np.float64),
    )


@compiled
def _read(maps: _Maps, row: int, side: _Side) -> int:
    """Read a map and spread its normalised mass on the grid.

    Returns how many entries it has, -1 where a mass is NaN, infinite or negative.
    """
    n = 0
    if maps.dense.size > 0:
        dense = maps.dense[row]
        for cell in range(len(dense)):
            if dense[cell] != 0.0:
                side.cells[n], side.values[n] = cell, dense[cell]
                n += 1
    else:
        for entry in range(maps.offsets[row], maps.offsets[row + 1]):
            if maps.values[entry] != 0.0:
                side.cells[n], side.values[n] = maps.indices[entry], maps.values[entry]
                n += 1
    peak, total = 0.0, 0.0
    for k in range(n):
        if not 0.0 <= side.values[k] < np.inf:
            return -1
        peak = max(peak, side.values[k])
    # by the maximum first: a sum of tiny or huge masses may under- or overflow
    for k in range(n):
        side.values[k] /= peak
        total += side.values[k]
    for k in range(n):
        side.share[side.cells[k]] += side.values[k] / total
    return n


@compiled
def _cancel(
    one: _Side, other: _Side, place: NDArray[np.int64], n_one: int, n_other: int
) -> tuple[int, int]:
    """Move what only one map has into left and surplus; return how many cells each has left.

    ``place`` says by what number a cell goes in left.
    """
    m, n = 0, 0
    for k in range(n_one + n_other):
        cell = one.cells[k] if k < n_one else other.cells[k - n_one]
        here, there = one.share[cell], other.share[cell]
        # zero from now on: a cell comes up once for each map, and perhaps for repeated entries
        one.share[cell], other.share[cell] = 0.0, 0.0
        if here - there > _NOISE * here:
            one.left[m], one.surplus[m] = place[cell], here - there
            m += 1
        elif there - here > _NOISE * there:
            other.left[n], other.surplus[n] = place[cell], there - here
            n += 1
    return m, n


class _Grid(NamedTuple):
    """Distances between cells: table[middle + place[to] - place[from]], in patches."""

    table: Reals
    place: NDArray[np.int64]
    middle: int
    longest: float


@compiled
def _grid_of(height: int, width: int) -> _Grid:
    span = 2 * width - 1
    table = np.empty((2 * height - 1) * span, np.float64)
    for row in range(2 * height - 1):
        for column in range(span):
            rows, columns = float(row - height + 1), float(column - width + 1)
            distance = np.sqrt(rows * rows + columns * columns)
            table[row * span + column] = np.rint(distance / GRAIN) * GRAIN
    place = np.empty(height * width, np.int64)
    for cell in range(height * width):
        place[cell] = cell // width * span + cell % width
    return _Grid(table, place, (height - 1) * span + width - 1, table[0])


@compiled
def _integer_shares(
    surplus: Reals, n: int, bits: int, shares: Reals, units: NDArray[np.int64]
) -> int:
    """Split 2**bits units in proportion to ``surplus`` [n]; return the position of the largest.

    Whatever has less than half a unit gets one: a node without mass would be degenerate.
    """
    total, largest, given = 0.0, 0, np.int64(0)
    for k in range(n):
        total += surplus[k]
    for k in range(n):
        shares[k] = surplus[k] / total
        units[k] = max(np.int64(np.rint(shares[k] * 2.0**bits)), 1)
        given += units[k]
        if units[k] > units[largest]:
            largest = k
    units[largest] += (np.int64(1) << bits) - given
    return largest


@compiled
def _pose(one: _Side, other: _Side, grid: _Grid, problem: Problem, m: int, n: int) -> float:
    """Write the transportation problem of what is left; return the mass it moves."""
    # The perturbation: masses in units of 2^f > m, and one unit of 1 more for each source, all m
    # of them for one sink. If sources I and sinks J had the same total, then modulo 2^f |I| would
    # be m or 0, as that sink is in J or not: I is all sources or none, and so J all sinks or none.
    # No proper subsets balance, so no arc of a tree is ever empty and no pivot is degenerate.
    fine = 1
    while (1 << fine) <= m:
        fine += 1
    bits, moved = _TOTAL_BITS - fine, 0.0
    _integer_shares(one.surplus, m, bits, problem.supply_share, problem.supply)
    last = _integer_shares(other.surplus, n, bits, problem.demand_share, problem.demand)
    for j in range(n):
        problem.demand[j] <<= fine
    problem.demand[last] += m
    for i in range(m):
        moved += one.surplus[i]
        problem.supply[i] = (problem.supply[i] << fine) + 1
        row = problem.cost[i * n : i * n + n]
        table = grid.table[grid.middle - one.left[i] :]
        for j in range(n):
            row[j] = table[np.uint64(other.left[j])]
    return moved


@compiled
def _star_cost(one: _Side, other: _Side, grid: _Grid, m: int, n: int) -> float:
    """Return what it costs where one side has a single cell: no choice is left."""
    total = 0.0
    for i in range(m):
        for j in range(n):
            mass = one.surplus[i] if n == 1 else other.surplus[j]
            total += mass * grid.table[grid.middle + other.left[j] - one.left[i]]
    return total


def _solve_rows(
    dense_first: Reals,
    indices_first: NDArray[np.int32],
    values_first: Reals,
    offsets_first: NDArray[np.int64],
    dense_second: Reals,
    indices_second: NDArray[np.int32],
    values_second: Reals,
    offsets_second: NDArray[np.int64],
    height: int,
    width: int,
    pivots_per_node: int,
    distances: Reals,
    outcomes: NDArray[np.int8],
    effort: NDArray[np.int32],
) -> None:
    # numba optimises a function again wherever it is called from: the solver's parts are called
    # from here, one level deep, which halves the time to compile
    first = _Maps(dense_first, indices_first, values_first, offsets_first)
    second = _Maps(dense_second, indices_second, values_second, offsets_second)
    grid, n_cells = _grid_of(height, width), height * width
    most_one, most_other = _most_entries(first, n_cells), _most_entries(second, n_cells)
    one, other = _side_of(most_one, n_cells), _side_of(most_other, n_cells)
    # a cell is left on one side only: m + n <= H·W, so m·n <= (H·W)² / 4
    n_costs = min(most_one * most_other, n_cells * n_cells // 4)
    problem = problem_of(most_one, most_other, n_costs)
    arcs, tree = arcs_of(most_one, most_other, n_costs), basis_of(most_one + most_other)
    for row in range(len(distances)):
        outcomes[row], effort[row, 0], effort[row, 1] = SOLVED, 0, 0
        n_one = _read(first, row, one)
        n_other = _read(second, row, other) if n_one >= 0 else 0
        if n_one < 0 or n_other < 0:
            outcomes[row] = BAD_FIRST if n_one < 0 else BAD_SECOND
            return
        m, n = _cancel(one, other, grid.place, n_one, n_other)
        if n_one == 0 or n_other == 0:
            distances[row] = np.nan
        elif m == 0 or n == 0:
            distances[row] = 0.0
        elif m == 1 or n == 1:
            distances[row] = _star_cost(one, other, grid, m, n)
        else:
            moved = _pose(one, other, grid, problem, m, n)
            greedy_plan(problem, arcs, m, n, grid.longest)
            plant(tree, problem, arcs, m, n)
            n_pivots = optimise(tree, problem, m, n, pivots_per_node * (m + n))
            effort[row, 0], effort[row, 1] = m + n, abs(n_pivots)
            distances[row] = plan_cost(tree, problem, m, n) * moved
            if n_pivots < 0 or np.isnan(distances[row]):
                outcomes[row] = UNSOLVED


def _read_only(dtype: types.Type, n_axes: int) -> types.Array:
    return types.Array(dtype, n_axes, "C", readonly=True)


_MAPS = (
    _read_only(types.float64, 2),
    _read_only(types.int32, 1),
    _read_only(types.float64, 1),
    _read_only(types.int64, 1),
)

solve_rows = compiled_entry(
    _solve_rows,
    types.void(
        *(*_MAPS, *_MAPS, types.int64, types.int64, types.int64),
        *(types.float64[::1], types.int8[::1], types.int32[:, ::1]),
    ),
)
