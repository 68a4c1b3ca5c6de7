"""Many maps on one patch grid, of which only the cells with mass are kept."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vitscope.errors import TransportError


@dataclass(frozen=True)
class SparseMaps:
    """N maps on an H x W grid; map k has entries offsets[k] to offsets[k + 1].

    Arrays or tensors go in, numpy arrays come out. Repeated cells of a map add up.

    Attributes:
        indices: cells, row · W + column, int32 [E], in any order.
        values: masses, float64 [E].
        offsets: int64 [N + 1], from 0 to E, never falling.
        shape: (H, W).

    Raises:
        TransportError: the arrays do not fit each other or the grid.
    """

    indices: NDArray[np.int32]
    values: NDArray[np.float64]
    offsets: NDArray[np.int64]
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        indices, values, offsets = (_flat(part) for part in self._parts())
        _check(indices, values, offsets, self.shape)
        object.__setattr__(self, "indices", np.ascontiguousarray(indices, dtype=np.int32))
        object.__setattr__(self, "values", np.ascontiguousarray(values, dtype=np.float64))
        object.__setattr__(self, "offsets", np.ascontiguousarray(offsets, dtype=np.int64))

    def _parts(self) -> tuple[Any, Any, Any]:
        return self.indices, self.values, self.offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def dense(self, rows: slice = slice(None)) -> NDArray[np.float64]:
        """Return some of the maps as an array [n, H, W]."""
        chosen = range(len(self))[rows]
        maps = np.zeros((len(chosen), self.shape[0] * self.shape[1]))
        for one, row in zip(maps, chosen, strict=True):
            entries = slice(self.offsets[row], self.offsets[row + 1])
            np.add.at(one, self.indices[entries], self.values[entries])
        return maps.reshape(-1, *self.shape)

    @classmethod
    def from_dense(cls, maps: ArrayLike | Tensor) -> Self:
        """Keep what is not zero of maps [N, H, W]."""
        dense = as_array(maps)
        if dense.ndim != 3:
            raise TransportError(f"dense maps are [N, H, W], got {list(dense.shape)}")
        n_maps, height, width = dense.shape
        flat = dense.reshape(n_maps, height * width)
        rows, cells = np.nonzero(flat)
        offsets = np.searchsorted(rows, np.arange(n_maps + 1))
        return cls(cells.astype(np.int32), flat[rows, cells], offsets, (height, width))

    @classmethod
    def from_torch(cls, maps: Tensor, shape: tuple[int, int] | None = None) -> Self:
        """Take a sparse tensor: COO [N, H, W], or COO or CSR [N, H·W] and the grid's ``shape``."""
        grid = tuple(maps.shape[1:]) if shape is None else shape
        if maps.layout not in (torch.sparse_coo, torch.sparse_csr) or len(grid) != 2:
            raise TransportError(
                "sparse maps are a COO tensor [N, H, W], or a COO or CSR tensor [N, H·W] with a "
                f"shape (H, W), got {maps.layout} {list(maps.shape)}"
            )
        height, width = grid
        if tuple(maps.shape[1:]) not in ((height, width), (height * width,)):
            raise TransportError(f"maps {list(maps.shape)} do not fit a grid {height} x {width}")
        if maps.layout == torch.sparse_csr:
            parts = maps.col_indices(), maps.values(), maps.crow_indices()
            indices, values, offsets = (as_array(part) for part in parts)
            return cls(indices, values, offsets, (height, width))
        merged = maps.detach().coalesce()
        position, values = as_array(merged.indices()), as_array(merged.values())
        cells = position[1] * width + position[2] if len(position) == 3 else position[1]
        offsets = np.searchsorted(position[0], np.arange(maps.shape[0] + 1))
        return cls(cells, values, offsets, (height, width))


def as_array(value: ArrayLike | Tensor) -> NDArray[Any]:
    """Return an array or tensor, of any device and gradient, as a numpy array."""
    if isinstance(value, Tensor):
        real = value.detach().cpu()
        # numpy has no bfloat16
        return (real.double() if real.is_floating_point() else real).numpy()
    return np.asarray(value)


def _flat(value: ArrayLike | Tensor) -> NDArray[Any]:
    array = as_array(value)
    if array.ndim != 1:
        raise TransportError(f"indices, values and offsets are flat, got {list(array.shape)}")
    return array


def _check(
    indices: NDArray[Any], values: NDArray[Any], offsets: NDArray[Any], shape: tuple[int, int]
) -> None:
    if len(indices) != len(values):
        raise TransportError(f"{len(indices)} indices but {len(values)} values")
    ends_fit = len(offsets) > 0 and offsets[0] == 0 and offsets[-1] == len(indices)
    if not ends_fit or (np.diff(offsets) < 0).any():
        raise TransportError(f"offsets run from 0 to {len(indices)} entries and never fall")
    n_cells = shape[0] * shape[1]
    outside = (indices < 0) | (indices >= n_cells)
    if outside.any():
        entry = int(outside.argmax())
        raise TransportError(
            f"entry {entry}: cell {int(indices[entry])} is not on a grid {shape[0]} x {shape[1]}"
        )
