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
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, issparse
from torch import Tensor

from vitscope.axes import Reals
from vitscope.errors import TransportError
from vitscope.transport.pot import cell_distances, pot_emd

PAIRS_PER_TASK = 512
"""The most that one compiled call solves."""

LEAST_PAIRS_PER_TASK = 32
"""With several workers, tasks shrink to this before a thread goes without."""

TASKS_PER_WORKER = 4
"""Pairs differ in effort: with several tasks each, threads end at about the same time."""

PIVOTS_PER_NODE = 50
"""Cap on the simplex, per cell that is left (most seen: 10). Beyond it POT takes over."""


class _Batch(NamedTuple):
    """Dense maps [N, H, W], or sparse ones [N, H·W]; the shape is [N, H, W] of either."""

    maps: NDArray[Any] | csr_array
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Transported:
    """The distances of a batch, and how they came about.

    Attributes:
        distances: float64 [N], in patches; NaN where a map is empty.
        nodes: int32 [N], cells left after cancelling common mass; 0 where a closed form was enough.
        pivots: int32 [N], of the simplex.
        n_fallbacks: pairs that the simplex did not certify within its cap and POT solved instead.
    """

    distances: Reals
    nodes: NDArray[np.int32]
    pivots: NDArray[np.int32]
    n_fallbacks: int


def emd(a: Any, b: Any, *, grid: tuple[int, int] | None = None, workers: int = 1) -> float | Reals:
    """Return the exact Earth Mover's Distance between non-negative maps, each normalised to sum 1.

    Args:
        a: one map [H, W] or a batch [N, H, W]: an array or a tensor of any real type, on any
            device, dense or COO; or a batch [N, H·W], sparse of SciPy's or torch's, with ``grid``.
            Repeated entries of a sparse map add up.
        b: the same shape as ``a``; either may be sparse.
        grid: (H, W) of sparse batches [N, H·W].
        workers: threads over the pairs of a batch.

    Returns:
        a float for one pair, float64 [N] for a batch, in patch units. A pair with an empty map has
        no distance: NaN, never 0.

    Raises:
        TransportError: shapes differ, or a map has NaN, infinite or negative mass.
    """
    first, second = _read(a, grid), _read(b, grid)
    if len(first.shape) != 2 or first.shape != second.shape:
        return _transport(first, second, workers).distances
    first, second = (_Batch(one.maps[None], (1, *one.shape)) for one in (first, second))
    return float(_transport(first, second, 1).distances[0])


def transport(
    a: Any, b: Any, *, grid: tuple[int, int] | None = None, workers: int = 1
) -> Transported:
    """Return the distances of a batch, as :func:`emd` does, with an account of the work."""
    return _transport(_read(a, grid), _read(b, grid), workers)


def _transport(a: _Batch, b: _Batch, workers: int) -> Transported:
    if a.shape != b.shape or len(a.shape) != 3:
        raise TransportError(
            f"emd takes two maps [H, W] or two batches [N, H, W] of one shape, got "
            f"{list(a.shape)} and {list(b.shape)}"
        )
    if issparse(a.maps) != issparse(b.maps):
        grid = (a.shape[1], a.shape[2])
        a, b = (_read(csr_array(_flat(one)), grid) for one in (a, b))
    kernel = _kernel()
    if kernel is None or 0 in a.shape[1:]:
        return _by_pot(a, b, range(a.shape[0]))
    return _by_simplex(kernel, a, b, workers)


@lru_cache(maxsize=1)
def _kernel() -> ModuleType | None:
    """Return the compiled solver; None, and one note, where numba cannot be imported."""
    try:
        # not at the top: `import vitscope` need not wait for numba
        return import_module("vitscope.transport.batch")
    except ImportError as error:
        warnings.warn(
            f"exact EMD runs on POT, some 25 times slower, since numba does not import ({error}): "
            "pip install numba",
            RuntimeWarning,
            stacklevel=4,
        )
        return None


def as_array(value: ArrayLike | Tensor) -> NDArray[Any]:
    """Return an array or dense tensor, of any device and gradient, as a numpy array."""
    if isinstance(value, Tensor):
        real = value.detach().cpu()
        # numpy has no bfloat16
        return (real.double() if real.is_floating_point() else real).numpy()
    return np.asarray(value)


def _read(value: Any, grid: tuple[int, int] | None) -> _Batch:
    if isinstance(value, Tensor) and value.layout != torch.strided:
        value, grid = _from_torch(value, grid)
    maps: Any = value if issparse(value) else as_array(value)
    if maps.dtype.kind not in "biuf":
        raise TransportError(f"maps hold real numbers, got {maps.dtype}")
    if not issparse(maps):
        return _Batch(maps, maps.shape)
    if grid is None or maps.ndim != 2 or maps.shape[1] != grid[0] * grid[1]:
        raise TransportError(
            f"sparse maps are [N, H·W], with grid = (H, W); got {list(maps.shape)} and {grid}"
        )
    try:
        rows = csr_array(maps, dtype=np.float64)
        rows.check_format(full_check=True)  # compiled code trusts every index
    except ValueError as error:
        raise TransportError(f"sparse maps do not fit the grid {grid}: {error}") from None
    return _Batch(rows, (maps.shape[0], *grid))


def _from_torch(
    maps: Tensor, grid: tuple[int, int] | None
) -> tuple[csr_array, tuple[int, int] | None]:
    """Return a COO tensor [N, H, W], or a COO or CSR tensor [N, H·W], for SciPy, and its grid."""
    if maps.layout == torch.sparse_csr:
        parts = maps.values(), maps.col_indices(), maps.crow_indices()
        return csr_array(tuple(as_array(part) for part in parts), shape=tuple(maps.shape)), grid
    if maps.layout != torch.sparse_coo or maps.ndim not in (2, 3):
        raise TransportError(
            "sparse maps are a COO tensor [N, H, W], or a COO or CSR tensor [N, H·W] with a grid "
            f"(H, W), got {maps.layout} {list(maps.shape)}"
        )
    merged = maps.detach().coalesce()
    (row, *place), values = as_array(merged.indices()), as_array(merged.values())
    if len(place) == 1:
        return csr_array((values, (row, place[0])), shape=tuple(maps.shape)), grid
    n_maps, height, width = maps.shape
    cells = place[0] * width + place[1]
    return csr_array((values, (row, cells)), shape=(n_maps, height * width)), (height, width)


def _flat(one: _Batch) -> NDArray[Any] | csr_array:
    return one.maps.reshape(one.shape[0], -1) if isinstance(one.maps, np.ndarray) else one.maps


def _columns(one: _Batch, rows: slice) -> tuple[Reals, NDArray[np.int32], Reals, NDArray[np.int64]]:
    """Return rows of a batch as the compiled solver takes them: dense [n, P], or empty and CSR."""
    if isinstance(one.maps, np.ndarray):
        dense = np.ascontiguousarray(one.maps[rows], dtype=np.float64)
        none = np.zeros(0, np.int32), np.zeros(0), np.zeros(1, np.int64)
        return dense.reshape(len(dense), -1), *none
    cells, masses, ends = one.maps.indices, one.maps.data, np.asarray(one.maps.indptr)
    return (
        np.zeros((0, 0)),
        np.ascontiguousarray(cells, dtype=np.int32),  # no copy, as a rule
        np.ascontiguousarray(masses, dtype=np.float64),
        ends[rows.start : rows.stop + 1].astype(np.int64),
    )


def _pairs_per_task(n_pairs: int, workers: int) -> int:
    if workers <= 1:
        return PAIRS_PER_TASK
    fair = -(-n_pairs // (workers * TASKS_PER_WORKER))
    return min(max(fair, LEAST_PAIRS_PER_TASK), PAIRS_PER_TASK)


def _by_simplex(kernel: ModuleType, a: _Batch, b: _Batch, workers: int) -> Transported:
    n_pairs, height, width = a.shape
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


def _by_pot(a: _Batch, b: _Batch, rows: Iterable[int]) -> Transported:
    _, height, width = a.shape
    cost = cell_distances(height, width)
    distances: list[float] = []
    for row in rows:
        one, other = (_one_map(side, int(row)) for side in (a, b))
        for side, flat in (("first", one), ("second", other)):
            if not np.isfinite(flat).all() or (flat < 0).any():
                raise _impossible(int(row), side)
        distances.append(pot_emd(one, other, cost))
    nothing = np.zeros(len(distances), np.int32)
    return Transported(np.asarray(distances, np.float64), nothing, nothing, len(distances))


def _one_map(one: _Batch, row: int) -> Reals:
    row_of = one.maps[row] if isinstance(one.maps, np.ndarray) else one.maps[[row]].toarray()
    return np.asarray(row_of, dtype=np.float64).ravel()


def _impossible(row: int, side: str) -> TransportError:
    return TransportError(f"pair {row}: its {side} map has NaN, infinite or negative mass")
