"""The two maps of many exemplar pairs, as cells with mass: what distances are computed from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitscope.emd.sparse_maps import SparseMaps

SIDES = ("first", "second")


@dataclass(frozen=True)
class PairMaps:
    """Maps of N pairs on the overlap, as view 1 and view 2 see them."""

    first: SparseMaps
    second: SparseMaps

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def joined(cls, chunks: Sequence[Self]) -> Self:
        """Concatenate; there must be at least one chunk."""
        return cls(*(_joined([getattr(chunk, side) for chunk in chunks]) for side in SIDES))

    def take(self, rows: NDArray[np.int64]) -> "PairMaps":
        """Return some pairs, in the order asked for."""
        return PairMaps(take_maps(self.first, rows), take_maps(self.second, rows))

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the maps by name, for the disk: float32 holds an activation exactly."""
        tensors: dict[str, Tensor] = {}
        for side in SIDES:
            maps: SparseMaps = getattr(self, side)
            tensors[f"{side}.cells"] = torch.from_numpy(maps.indices)
            tensors[f"{side}.values"] = torch.from_numpy(maps.values.astype(np.float32))
            tensors[f"{side}.offsets"] = torch.from_numpy(maps.offsets)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], side: int) -> Self:
        """Return what :meth:`to_tensors` was called on, on an overlap of ``side`` patches a side.

        Other names are ignored.
        """

        def maps(view: str) -> SparseMaps:
            parts = (tensors[f"{view}.{part}"].numpy() for part in ("cells", "values", "offsets"))
            cells, values, offsets = parts
            return SparseMaps(cells, values, offsets, (side, side))

        return cls(maps("first"), maps("second"))


def take_maps(maps: SparseMaps, rows: NDArray[np.int64]) -> SparseMaps:
    """Return some of the maps, in the order asked for."""
    counts = np.diff(maps.offsets)[rows]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    # entry e of a row lies at the row's start in the source, plus its place within the row
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    entries = np.repeat(maps.offsets[:-1][rows], counts) + within
    return SparseMaps(maps.indices[entries], maps.values[entries], offsets, maps.shape)


def _joined(parts: Sequence[SparseMaps]) -> SparseMaps:
    starts = np.cumsum([0, *(part.offsets[-1] for part in parts)])
    moved = [part.offsets[1:] + start for part, start in zip(parts, starts, strict=False)]
    return SparseMaps(
        np.concatenate([part.indices for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([np.zeros(1, np.int64), *moved]),
        parts[0].shape,
    )
