"""Two maps of a pair: read, checked, normalised, and what they share cell by cell cancelled."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitscope.compiled import compiled

NOISE = 1e-15
"""Two shares of mass closer than this, relative to the larger, differ by rounding alone."""

Reals = NDArray[np.float64]
Cells = NDArray[np.int32]


class Maps(NamedTuple):
    """One side of a batch: dense maps [N, H·W], or none (size 0) and sparse ones.

    Map k has values[offsets[k] : offsets[k + 1]] in cells indices[offsets[k] : offsets[k + 1]].
    """

    dense: Reals
    indices: Cells
    values: Reals
    offsets: NDArray[np.int64]


class Side(NamedTuple):
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
def most_entries(maps: Maps, n_cells: int) -> int:
    """Return the most entries that a map of the batch can have."""
    if maps.dense.size > 0:
        return n_cells
    most = 0
    for row in range(len(maps.offsets) - 1):
        most = max(most, maps.offsets[row + 1] - maps.offsets[row])
    return most


@compiled
def side_of(n_entries: int, n_cells: int) -> Side:
    """Return room for maps of at most ``n_entries``."""
    return Side(
        np.empty(n_entries, np.int64),
        np.empty(n_entries, np.float64),
        np.zeros(n_cells, np.float64),
        np.empty(n_entries, np.int64),
        np.empty(n_entries, np.float64),
    )


@compiled
def read(maps: Maps, row: int, side: Side) -> int:
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
def cancel(
    one: Side, other: Side, place: NDArray[np.int64], n_one: int, n_other: int
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
        if here - there > NOISE * here:
            one.left[m], one.surplus[m] = place[cell], here - there
            m += 1
        elif there - here > NOISE * there:
            other.left[n], other.surplus[n] = place[cell], there - here
            n += 1
    return m, n
