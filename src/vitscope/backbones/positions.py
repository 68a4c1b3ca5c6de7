"""Learned position embeddings on another grid, as each library resamples them."""

import math
from typing import Literal

import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn import functional

PositionMethod = Literal["timm", "bicubic", "meta"]
"""``timm``: bicubic, low-passed where it shrinks (timm; transformers' DINOv2 with registers).
``bicubic``: plain (transformers' DINOv2). ``meta``: plain, with the scale of Meta's hub models."""

META_OFFSET = 0.1
"""Added by Meta's DINOv2 to the new side before it is divided by the old: against rounding."""


def resample_positions(
    pos_embed: Float32[Tensor, "1 N D"],
    n_prefix_in_pos: int,
    new_grid: tuple[int, int],
    method: PositionMethod,
    *,
    old_grid: tuple[int, int] | None = None,
) -> Float32[Tensor, "1 M D"]:
    """Resample the patches' embeddings to ``new_grid`` (rows, columns); the prefix's stay.

    Args:
        pos_embed: of the prefix tokens that have positions, then of the patches, row by row.
        n_prefix_in_pos: how many of them belong to prefix tokens.
        new_grid: rows and columns of patches wanted.
        method: the three differ by a few per cent on trained embeddings, so tokens do too.
        old_grid: of ``pos_embed``; square unless given.
    """
    n_patches = pos_embed.shape[1] - n_prefix_in_pos
    rows, columns = old_grid or (math.isqrt(n_patches), math.isqrt(n_patches))
    assert rows * columns == n_patches, "positions do not fill their grid"
    if (rows, columns) == new_grid:
        return pos_embed
    prefix, patches = pos_embed.split([n_prefix_in_pos, n_patches], 1)
    image = patches.reshape(1, rows, columns, -1).permute(0, 3, 1, 2)
    match method:
        case "timm":
            moved = functional.interpolate(image, new_grid, mode="bicubic", antialias=True)
        case "bicubic":
            moved = functional.interpolate(image, new_grid, mode="bicubic")
        case "meta":
            # given a scale, PyTorch samples at multiples of its inverse, not at cell centres of
            # the new grid: the offset shifts every embedding a little, as in the released models
            scale = ((new_grid[0] + META_OFFSET) / rows, (new_grid[1] + META_OFFSET) / columns)
            moved = functional.interpolate(image, scale_factor=scale, mode="bicubic")
    assert moved.shape[-2:] == new_grid, "the scale does not give the grid asked for"
    return torch.cat([prefix, moved.permute(0, 2, 3, 1).flatten(1, 2)], 1)
