"""Exact Earth Mover's Distance between maps on a patch grid, in patch units.

Mass that two maps share cell by cell stays where it is in an optimal plan, since the Euclidean cost
is a metric; what remains is solved exactly by a compiled network simplex, chunk by chunk on a
thread pool, and by POT where numba is missing or a pair is not certified optimal.
"""

import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vitscope.emd.sparse_maps import SparseMaps, as_array
from vitscope.emd.transport_pot import Map, cell_distances, pot_emd
from vitscope.errors import TransportError

__all__ = ["SparseMaps", "Transported", "cell_distances", "emd", "transport"]

PAIRS_PER_TASK = 512
"""The most that one compiled call solves."""

LEAST_PAIRS_PER_TASK = 32
"""With several workers, tasks shrink to this before a thread goes without."""

TASKS_PER_WORKER = 4
"""Pairs differ in effort: with several tasks each, threads end at about the same time."""

PIVOTS_PER_NODE = 50
"""Cap on the simplex, per cell that is left (most seen: 10). Beyond it POT takes over."""

Maps = NDArray[Any] | SparseMaps


@dataclass(frozen=True)
class Transported:
    """The distances of a batch, and how they came about.

    Attributes:
        distances: float64 [N], in patches; NaN where a map is empty.
        nodes: int32 [N], cells left after cancelling common mass; 0 where a closed form was enough.
        pivots: int32 [N], of the simplex.
        n_fallbacks: pairs that the simplex did not certify within its cap and POT solved instead.
    """

    distances: Map
    nodes: NDArray[np.int32]
    pivots: NDArray[np.int32]
    n_fallbacks: int


def emd(
    a: ArrayLike | Tensor | SparseMaps, b: ArrayLike | Tensor | SparseMaps, *, workers: int = 1
) -> float | Map:
    """Return the exact Earth Mover's Distance between non-negative maps, each normalised to sum 1.

    Args:
        a: one map [H, W], a batch [N, H, W], or ``SparseMaps``; arrays or tensors of any real type,
            on any device, dense or sparse.
        b: the same shape as ``a``; either may be sparse.
        workers: threads over the pairs of a batch.

    Returns:
        a float for one pair, float64 [N] for a batch, in patch units. A pair with an empty map has
        no distance: NaN, never 0.

    Raises:
        TransportError: shapes differ, or a map has NaN, infinite or negative mass.
    """
    first, second = _maps(a), _maps(b)
    if isinstance(first, SparseMaps) or isinstance(second, SparseMaps):
        return transport(first, second, workers=workers).distances
    if first.ndim == 2 and first.shape == second.shape:
        return float(transport(first[None], second[None]).distances[0])
    return transport(first, second, workers=workers).distances


def transport(
    a: ArrayLike | Tensor | SparseMaps, b: ArrayLike | Tensor | SparseMaps, *, workers: int = 1
) -> Transported:
    """Return the distances of a batch, as ``emd`` does, with an account of the work."""
    first, second = _maps(a), _maps(b)
    if isinstance(first, SparseMaps) != isinstance(second, SparseMaps):
        first, second = (_sparse(maps) for maps in (first, second))
    one, other = _shape(first), _shape(second)
    if one != other or len(one) != 3:
        raise TransportError(
            f"emd takes two maps [H, W] or two batches [N, H, W] of one shape, got "
            f"{list(one)} and {list(other)}"
        )
    kernel = _kernel()
    if kernel is None or one[1] * one[2] == 0:
        return _by_pot(first, second, range(one[0]))
    return _by_simplex(kernel, first, second, workers)


@lru_cache(maxsize=1)
def _kernel() -> ModuleType | None:
    """Return the compiled solver; None, and one note, where numba cannot be imported."""
    try:
        # not at the top: `import vitscope` need not wait for numba
        return import_module("vitscope.emd.transport_batch")
    except ImportError as error:
        warnings.warn(
            f"exact EMD runs on POT, some 25 times slower, since numba does not import ({error}): "
            "pip install numba",
            RuntimeWarning,
            stacklevel=4,
        )
        return None


def _maps(value: ArrayLike | Tensor | SparseMaps) -> Maps:
    if isinstance(value, SparseMaps):
        return value
    if isinstance(value, Tensor) and value.layout != torch.strided:
        return SparseMaps.from_torch(value)
    array = as_array(value)
    if array.dtype.kind not in "biuf":
        raise TransportError(f"maps hold real numbers, got {array.dtype}")
    return array


def _sparse(maps: Maps) -> Maps:
    return maps if isinstance(maps, SparseMaps) or maps.ndim != 3 else SparseMaps.from_dense(maps)


def _shape(maps: Maps) -> tuple[int, ...]:
    return (len(maps), *maps.shape) if isinstance(maps, SparseMaps) else maps.shape


def _columns(maps: Maps, rows: slice) -> tuple[Map, NDArray[np.int32], Map, NDArray[np.int64]]:
    """Return rows of a batch as the compiled solver takes them: dense [n, P], or empty and CSR."""
    if isinstance(maps, SparseMaps):
        offsets = maps.offsets[rows.start : rows.stop + 1]
        return np.zeros((0, 0)), maps.indices, maps.values, offsets
    dense = np.ascontiguousarray(maps[rows], dtype=np.float64)
    none = np.zeros(0, np.int32), np.zeros(0), np.zeros(1, np.int64)
    return dense.reshape(len(dense), -1), *none


def _pairs_per_task(n_pairs: int, workers: int) -> int:
    if workers <= 1:
        return PAIRS_PER_TASK
    fair = -(-n_pairs // (workers * TASKS_PER_WORKER))
    return min(max(fair, LEAST_PAIRS_PER_TASK), PAIRS_PER_TASK)


def _by_simplex(kernel: ModuleType, a: Maps, b: Maps, workers: int) -> Transported:
    n_pairs, height, width = _shape(a)
    distances, outcomes = np.empty(n_pairs), np.zeros(n_pairs, np.int8)
    effort = np.zeros((n_pairs, 2), np.int32)
    n_rows = _pairs_per_task(n_pairs, workers)

    def solve(start: int) -> None:
        rows = slice(start, min(start + n_rows, n_pairs))
        sides, grid = (*_columns(a, rows), *_columns(b, rows)), (height, width)
        results = distances[rows], outcomes[rows], effort[rows]
        kernel.solve_rows(*sides, *grid, PIVOTS_PER_NODE, *results)
        for side, outcome in (("first", kernel.BAD_FIRST), ("second", kernel.BAD_SECOND)):
            if (wrong := np.flatnonzero(outcomes[rows] == outcome)).size:
                raise _impossible(start + int(wrong[0]), side)

    starts = range(0, n_pairs, n_rows)
    if workers <= 1 or len(starts) <= 1:
        for start in starts:
            solve(start)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(solve, starts))
    unsolved = np.flatnonzero(outcomes == kernel.UNSOLVED)
    if unsolved.size:
        warnings.warn(
            f"{unsolved.size} of {n_pairs} pairs had no certified optimum within "
            f"{PIVOTS_PER_NODE} pivots a cell; POT solved them",
            RuntimeWarning,
            stacklevel=4,
        )
        distances[unsolved] = _by_pot(a, b, unsolved).distances
    return Transported(distances, effort[:, 0], effort[:, 1], int(unsolved.size))


def _by_pot(a: Maps, b: Maps, rows: Iterable[int]) -> Transported:
    _, height, width = _shape(a)
    cost = cell_distances(height, width)
    distances: list[float] = []
    for row in rows:
        one, other = (_one_map(maps, int(row)) for maps in (a, b))
        for side, flat in (("first", one), ("second", other)):
            if not np.isfinite(flat).all() or (flat < 0).any():
                raise _impossible(int(row), side)
        distances.append(pot_emd(one, other, cost))
    nothing = np.zeros(len(distances), np.int32)
    return Transported(np.asarray(distances, np.float64), nothing, nothing, len(distances))


def _one_map(maps: Maps, row: int) -> Map:
    one = maps.dense(slice(row, row + 1)) if isinstance(maps, SparseMaps) else maps[row]
    return np.asarray(one, dtype=np.float64).ravel()


def _impossible(row: int, side: str) -> TransportError:
    return TransportError(f"pair {row}: its {side} map has NaN, infinite or negative mass")
