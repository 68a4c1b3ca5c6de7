"""The optimal plan between two maps: which mass goes where, as arrows that a picture can show."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vitscope.axes import Reals
from vitscope.errors import TransportError
from vitscope.transport.emd import as_array
from vitscope.transport.pot import cell_distances, moving_mass, pot_plan


@dataclass(frozen=True)
class Flow:
    """How the mass of one map becomes that of another at least cost; either map sums to 1.

    Where several plans cost the same, one of them.

    Attributes:
        source: cell (row, column) that each stream leaves, [n, 2].
        target: cell that it reaches, never the source, [n, 2].
        mass: share of the whole that it carries, descending, [n].
        stays: share that both maps have in the same cells, and that goes nowhere.
        emd: Σ mass · Euclidean distance, in patches: the maps' Earth Mover's Distance.
    """

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    mass: Reals
    stays: float
    emd: float


def optimal_flow(a: ArrayLike | Tensor, b: ArrayLike | Tensor) -> Flow | None:
    """Return an optimal plan from map ``a`` to map ``b`` [H, W], by POT; None where one is empty.

    For pictures of single pairs: :func:`vitscope.transport.emd.emd` needs no plan and is faster.

    Raises:
        TransportError: shapes differ, a map has NaN, infinite or negative mass, or POT gave up.
    """
    first, second = (np.asarray(as_array(one), dtype=np.float64) for one in (a, b))
    if first.shape != second.shape or first.ndim != 2:
        raise TransportError(
            f"a flow joins two maps [H, W] of one shape, got {list(first.shape)} and "
            f"{list(second.shape)}"
        )
    for name, one in (("first", first), ("second", second)):
        if not np.isfinite(one).all() or (one < 0).any():
            raise TransportError(f"the {name} map has NaN, infinite or negative mass")
    moving = moving_mass(first.ravel(), second.ravel())
    if moving is None:
        return None
    leaves, arrives = moving
    sources, targets = np.flatnonzero(leaves), np.flatnonzero(arrives)
    share = float(leaves.sum())
    if sources.size == 0 or targets.size == 0:
        none = np.zeros((0, 2), np.int64)
        return Flow(none, none, np.zeros(0), 1.0, 0.0)
    distances = cell_distances(*first.shape)[np.ix_(sources, targets)]
    plan = share * pot_plan(leaves[sources], arrives[targets], distances)
    rows, columns = np.nonzero(plan)
    order = np.argsort(-plan[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    return Flow(
        source=_cells(sources[rows], first.shape[1]),
        target=_cells(targets[columns], first.shape[1]),
        mass=plan[rows, columns],
        stays=1.0 - share,
        emd=float((plan * distances).sum()),
    )


def _cells(flat: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    return np.stack(np.divmod(flat, width), axis=1)
