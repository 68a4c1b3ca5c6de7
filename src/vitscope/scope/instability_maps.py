"""The attention maps that are compared between views, read from a block row by row.

A column runs over every query of the overlap, and so does the mean that a key receives. So each row
is computed once, a few rows at a time; what is kept are the rows and columns of chosen tokens and
one sum. With V views, A heads and G tokens on an overlap of q² patches that is 2·A·G·q² + A·q²
numbers a view, and V·A·``QUERY_CHUNK`` rows while they are read: never a whole P×P map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitscope.backbones.attention import QUERY_CHUNK, BlockAttention


@dataclass(frozen=True)
class ViewMaps:
    """Attention of one view between the q² patches that it shares with the other one.

    Attributes:
        query: rows of the chosen tokens over the overlap's keys, float32 [A, G, q²].
        key: columns of the same tokens over the overlap's queries, float32 [A, G, q²].
        received: what every key of the overlap receives, averaged over its queries, float32
            [A, q²]; summed in float64.
    """

    query: NDArray[np.float32]
    key: NDArray[np.float32]
    received: NDArray[np.float32]


@torch.inference_mode()
def read_maps(
    attention: BlockAttention, cells: NDArray[np.int64], tokens: Sequence[NDArray[np.int64]]
) -> list[ViewMaps]:
    """Read the maps of every view in ``attention``; its views share the place of the overlap.

    Args:
        attention: of V views.
        cells: flat patch positions of the overlap, [q²].
        tokens: for each view the chosen tokens, counted within the overlap, ascending, [G].
    """
    places = torch.from_numpy(cells) + attention.n_prefix
    kept = [_Kept(torch.from_numpy(chosen)) for chosen in tokens]
    received: Tensor | float = 0.0
    for start in range(0, len(cells), QUERY_CHUNK):
        received = received + _read_rows(attention, places, start, kept)
    assert isinstance(received, Tensor)
    means = (received / len(cells)).float().cpu().numpy()
    return [one.joined(mean) for one, mean in zip(kept, means, strict=True)]


class _Kept:
    """What has been kept of one view."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens
        self.rows: list[Tensor] = []
        self.columns: list[Tensor] = []

    def take(self, rows: Tensor, start: int) -> None:
        """Keep, of rows [A, n, q²] from position ``start`` on, what belongs to chosen tokens."""
        tokens = self.tokens
        inside = tokens[(tokens >= start) & (tokens < start + rows.shape[1])] - start
        # indexed by tensors, and so copied: the rows themselves are let go
        self.rows.append(rows[:, inside.to(rows.device)].cpu())
        self.columns.append(rows[:, :, tokens.to(rows.device)].cpu())

    def joined(self, received: NDArray[np.float32]) -> ViewMaps:
        columns = torch.cat(self.columns, 1).transpose(1, 2)
        return ViewMaps(torch.cat(self.rows, 1).numpy(), columns.contiguous().numpy(), received)


def _read_rows(
    attention: BlockAttention, places: Tensor, start: int, kept: Sequence[_Kept]
) -> Tensor:
    """Read one chunk of rows and return its sum over queries, float64 [V, A, q²]."""
    rows = attention.rows(places[start : start + QUERY_CHUNK])
    over_overlap = rows[..., places.to(rows.device)]
    for one, of_view in zip(kept, over_overlap, strict=True):
        one.take(of_view, start)
    return over_overlap.sum(2, dtype=torch.float64)
