"""Exact Earth Mover's Distance between maps on a patch grid, in patch units.

Mass that two maps share cell by cell stays where it is in an optimal plan, since the Euclidean cost
is a metric; what remains is solved exactly on its supports by POT's network simplex.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import ot
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vitscope.errors import TransportError

Map = NDArray[np.float64]

MAX_PIVOTS = 10_000_000
"""Far above what any grid needs; reaching it is an error, never a silent answer."""

PAIRS_PER_TASK = 64


@lru_cache(maxsize=64)
def cell_distances(height: int, width: int) -> Map:
    """Return Euclidean distances [H·W, H·W] between patch centres, in patches."""
    rows, columns = np.divmod(np.arange(height * width), width)
    distances = np.hypot(rows[:, None] - rows, columns[:, None] - columns)
    distances.flags.writeable = False
    return distances


def emd(a: ArrayLike | Tensor, b: ArrayLike | Tensor, *, workers: int = 1) -> float | Map:
    """Return the exact Earth Mover's Distance between non-negative maps, each normalised to sum 1.

    Args:
        a: one map [H, W] or a batch [N, H, W]; arrays or tensors of any real type.
        b: the same shape as ``a``.
        workers: threads over the pairs of a batch.

    Returns:
        a float for one pair, float64 [N] for a batch, in patch units. A pair with an empty map has
        no distance: NaN, never 0.

    Raises:
        TransportError: shapes differ, or a map has NaN, infinite or negative mass.
    """
    first, second = _as_maps(a), _as_maps(b)
    if first.shape != second.shape or first.ndim not in (2, 3):
        raise TransportError(
            f"emd takes two maps [H, W] or two batches [N, H, W] of one shape, got "
            f"{list(first.shape)} and {list(second.shape)}"
        )
    if first.ndim == 2:
        return float(_solve_batch(first[None], second[None], 1)[0])
    return _solve_batch(first, second, workers)


def _as_maps(value: ArrayLike | Tensor) -> Map:
    raw: Any = value.detach().cpu().double().numpy() if isinstance(value, Tensor) else value
    return np.asarray(raw, dtype=np.float64)


def _solve_batch(a: Map, b: Map, workers: int) -> Map:
    for name, maps in (("first", a), ("second", b)):
        wrong = ~np.isfinite(maps).all((1, 2)) | (maps < 0).any((1, 2))
        if wrong.any():
            raise TransportError(
                f"pair {int(wrong.argmax())}: its {name} map has NaN, infinite or negative mass"
            )
    distances = cell_distances(*a.shape[1:])
    # not -1: a batch may be empty
    flat_a, flat_b = (maps.reshape(len(maps), len(distances)) for maps in (a, b))

    def solve(rows: range) -> list[float]:
        return [_solve_pair(flat_a[row], flat_b[row], distances) for row in rows]

    starts = range(0, len(a), PAIRS_PER_TASK)
    tasks = [range(start, min(start + PAIRS_PER_TASK, len(a))) for start in starts]
    if workers <= 1 or len(tasks) <= 1:
        solved: Sequence[list[float]] = [solve(task) for task in tasks]
    else:
        with ThreadPoolExecutor(workers) as pool:
            solved = list(pool.map(solve, tasks))
    return np.asarray([value for chunk in solved for value in chunk], dtype=np.float64)


def _solve_pair(a: Map, b: Map, distances: Map) -> float:
    # by the maximum first: a sum of tiny or huge masses may under- or overflow
    peak_a, peak_b = a.max(initial=0.0), b.max(initial=0.0)
    if peak_a == 0 or peak_b == 0:
        return float("nan")
    a, b = a / peak_a, b / peak_b
    a, b = a / a.sum(), b / b.sum()
    common = np.minimum(a, b)
    a, b = a - common, b - common
    from_cells, to_cells = np.flatnonzero(a), np.flatnonzero(b)
    if from_cells.size == 0 or to_cells.size == 0:
        return 0.0
    cost = distances[np.ix_(from_cells, to_cells)]
    supply, demand = a[from_cells], b[to_cells]
    if from_cells.size == 1 or to_cells.size == 1:
        return float((cost * demand).sum() if from_cells.size == 1 else (cost[:, 0] * supply).sum())
    moved = supply.sum()
    # what rounding left between the two sums would make the problem infeasible
    total, log = ot.emd2(
        supply / moved, demand / demand.sum(), cost, numItermax=MAX_PIVOTS, log=True
    )[:2]
    if log["warning"] is not None:
        raise TransportError(f"the network simplex gave up: {log['warning']}")
    return float(total) * float(moved)
