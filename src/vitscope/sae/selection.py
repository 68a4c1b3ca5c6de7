"""Batch top-k: the B·K largest pre-activations of a whole batch, exactly."""

import torch
from torch import Tensor

from vitscope.axes import Float, Int64
from vitscope.sae.sparse_code import SparseCode

MAX_BLOCK = 64
"""Entries per block: one maximum of 64 makes the search for the bound 64 times smaller."""

MIN_BLOCK = 8
"""Below this, blocks save nothing: all positive entries are candidates."""

BLOCKS_PER_KEPT = 4
"""At least this many blocks per kept entry, or their maxima bound the cut too loosely."""


def batch_top_k(pre: Float[Tensor, "B m"], n_keep: int) -> SparseCode:
    """Return the ``n_keep`` largest positive entries of the whole of ``pre``.

    Among equal entries the lower flat index (row first, then feature) wins. Where fewer than
    ``n_keep`` entries are positive, those are all that is kept.

    Exact without sorting the batch: each of the ``n_keep`` largest block maxima is an entry, so
    the smallest of them is a lower bound of the cut, and few entries lie above it.

    Raises:
        FloatingPointError: ``pre`` has a NaN.
    """
    flat = pre.detach().reshape(-1)
    n_keep = min(n_keep, flat.numel())
    if n_keep == 0:
        positions = torch.empty(0, dtype=torch.int64, device=pre.device)
    else:
        positions = _candidates(flat, n_keep)
    if positions.numel() > n_keep:
        positions = positions[_largest(flat[positions], n_keep)]
    n_rows, n_features = pre.shape
    return SparseCode(
        rows=torch.div(positions, n_features, rounding_mode="floor"),
        features=positions % n_features,
        values=flat[positions],
        n_rows=n_rows,
        n_features=n_features,
    )


def largest_values(flat: Float[Tensor, "n"], n: int) -> Float[Tensor, "n_kept"]:
    """Return the ``n`` largest positive entries of ``flat``, unordered; fewer if fewer exist."""
    positions = _candidates(flat, min(n, flat.numel()))
    values = flat[positions]
    return values.topk(n, sorted=False).values if values.numel() > n else values


def _candidates(flat: Float[Tensor, "n"], n_keep: int) -> Int64[Tensor, "c"]:
    """Ascending flat indices of positive entries, the ``n_keep`` largest among them."""
    block = min(MAX_BLOCK, flat.numel() // (BLOCKS_PER_KEPT * n_keep))
    if block < MIN_BLOCK:
        _refuse_nan(flat)
        return (flat > 0).nonzero().squeeze(1)
    n_blocks = flat.numel() // block
    blocks = flat[: n_blocks * block].view(n_blocks, block)
    tail = flat[n_blocks * block :]
    maxima = blocks.amax(dim=1)
    _refuse_nan(maxima)
    _refuse_nan(tail)
    bound = maxima.topk(n_keep, sorted=False).values.min()
    live = ((maxima >= bound) & (maxima > 0)).nonzero().squeeze(1)
    found = blocks[live]
    inside, column = ((found >= bound) & (found > 0)).nonzero(as_tuple=True)
    in_tail = ((tail >= bound) & (tail > 0)).nonzero().squeeze(1)
    return torch.cat([live[inside] * block + column, n_blocks * block + in_tail])


def _largest(values: Float[Tensor, "c"], n_keep: int) -> Tensor:
    """Mask of the ``n_keep`` largest of ``values``; among equals, the first."""
    cut = values.topk(n_keep, sorted=False).values.min()
    keep = values > cut
    ties = (values == cut).nonzero().squeeze(1)
    keep[ties[: n_keep - int(keep.sum())]] = True
    return keep


def _refuse_nan(values: Tensor) -> None:
    if bool(values.isnan().any()):
        raise FloatingPointError("pre-activations contain NaN")
