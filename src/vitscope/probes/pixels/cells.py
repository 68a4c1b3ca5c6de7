"""Cells: the squares between four patch centres, and which pixels lie in each."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitscope.compiled import compiled

Float32s = NDArray[np.float32]
Int64s = NDArray[np.int64]

LARGEST_SPAN, LARGEST_EXPONENT = 140.0, 80.0
"""Of logits within a patch, and of what leads from pixel to pixel: within float32's range."""


class Axis(NamedTuple):
    """Cells along one side of the grid, and the pixels between their two patches.

    Attributes:
        low, high: patches on both sides; equal beyond the outermost centres.
        first: first pixel of each cell.
        pixels: how many it has.
        weight: of ``high``, for every pixel, [S].
        step: what the weight grows by from pixel to pixel within a cell.
    """

    low: Int64s
    high: Int64s
    first: Int64s
    pixels: Int64s
    weight: Float32s
    step: np.float32


def axis_of(grid: int, side: int) -> Axis:
    """Return the cells of a side, as bilinear interpolation without aligned corners has them."""
    step = grid / side
    place = (np.arange(side) + 0.5) * step - 0.5
    cell = np.floor(place).astype(np.int64)
    _, first, count = np.unique(cell, return_index=True, return_counts=True)
    low, high = cell[first].clip(0, grid - 1), (cell[first] + 1).clip(0, grid - 1)
    weight = (place - cell).astype(np.float32)
    return Axis(low, high, first.astype(np.int64), count.astype(np.int64), weight, np.float32(step))


def span_limit(axis: Axis) -> np.float32:
    """Return how far a patch's logits may lie apart for its cells to be done by progressions.

    The largest exponent of a factor is 2·h²·span (that of r's own factor) or h·span.
    """
    h = float(axis.step)
    return np.float32(min(LARGEST_SPAN, LARGEST_EXPONENT / (2 * h)))


@compiled
def pixels_of(axis: Axis, cell: int) -> slice:
    """Return the pixels of a cell, along the side."""
    return slice(axis.first[cell], axis.first[cell] + axis.pixels[cell])
