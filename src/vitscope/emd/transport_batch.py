"""A batch of exact Earth Mover's Distances in one compiled call, with no Python per pair.

Each pair: check and normalise, cancel what the maps share cell by cell, closed form where one side
is a single cell or none, else the transportation simplex on what is left.
"""

from typing import NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from vitscope.compiled import compiled, compiled_entry
from vitscope.emd.cancelling import Cells, Maps, Reals, Side, cancel, most_entries, read, side_of
from vitscope.emd.simplex import basis_of, optimise, plan_cost, plant
from vitscope.emd.simplex_start import GRAIN, Problem, arcs_of, greedy_plan, problem_of

SOLVED, BAD_FIRST, BAD_SECOND, UNSOLVED = range(4)
"""Outcome of a pair: a distance, an impossible mass in a map, or no certified optimum."""

TOTAL_BITS = 60
"""Masses become integers that sum to about 2⁶⁰, the perturbation of their last bits included."""


class Grid(NamedTuple):
    """Distances between cells: table[middle + place[to] - place[from]], in patches."""

    table: Reals
    place: NDArray[np.int64]
    middle: int
    longest: float


@compiled
def _grid_of(height: int, width: int) -> Grid:
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
    return Grid(table, place, (height - 1) * span + width - 1, table[0])


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
def _pose(one: Side, other: Side, grid: Grid, problem: Problem, m: int, n: int) -> float:
    """Write the transportation problem of what is left; return the mass it moves."""
    # every source gets one unit more of a finer grain, all of them together end in one sink: then
    # a set of sources and a set of sinks never have the same total, unless they are all there are
    fine = 1
    while (1 << fine) <= m:
        fine += 1
    bits, moved = TOTAL_BITS - fine, 0.0
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
def _star_cost(one: Side, other: Side, grid: Grid, m: int, n: int) -> float:
    """Return what it costs where one side has a single cell: no choice is left."""
    total = 0.0
    for i in range(m):
        for j in range(n):
            mass = one.surplus[i] if n == 1 else other.surplus[j]
            total += mass * grid.table[grid.middle + other.left[j] - one.left[i]]
    return total


def _solve_rows(
    dense_first: Reals,
    indices_first: Cells,
    values_first: Reals,
    offsets_first: NDArray[np.int64],
    dense_second: Reals,
    indices_second: Cells,
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
    first = Maps(dense_first, indices_first, values_first, offsets_first)
    second = Maps(dense_second, indices_second, values_second, offsets_second)
    grid, n_cells = _grid_of(height, width), height * width
    most_one, most_other = most_entries(first, n_cells), most_entries(second, n_cells)
    one, other = side_of(most_one, n_cells), side_of(most_other, n_cells)
    # a cell is left on one side only: m + n <= H·W, so m·n <= (H·W)² / 4
    n_costs = min(most_one * most_other, n_cells * n_cells // 4)
    problem = problem_of(most_one, most_other, n_costs)
    arcs, tree = arcs_of(most_one, most_other, n_costs), basis_of(most_one + most_other)
    for row in range(len(distances)):
        outcomes[row], effort[row, 0], effort[row, 1] = SOLVED, 0, 0
        n_one = read(first, row, one)
        n_other = read(second, row, other) if n_one >= 0 else 0
        if n_one < 0 or n_other < 0:
            outcomes[row] = BAD_FIRST if n_one < 0 else BAD_SECOND
            return
        m, n = cancel(one, other, grid.place, n_one, n_other)
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
