"""Masks and depth maps brought to the backbone's input as its picture was, without mixing values.

A picture is resized and cropped by ``images.loading.to_square``; a map must take the same way, but
every pixel keeps the value of one pixel of the original: no class lies between two others.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

EIGEN_ROWS, EIGEN_COLUMNS = (45 / 480, 471 / 480), (41 / 640, 601 / 640)
"""Share of a map's height and width that Eigen's crop keeps, of 480 x 640 in NYU's case."""


def map_to_square(
    values: NDArray[Any], side: int, crop_share: float, *, stretch: bool, pixels: int
) -> NDArray[Any]:
    """Return what of a map [H, W] lies under the backbone's input, at ``pixels`` a side.

    Args:
        values: one per pixel of the picture.
        side: of the backbone's input, in pixels.
        crop_share: share of the resized shorter side that the crop keeps.
        stretch: whether the picture's aspect ratio was given up.
        pixels: side of the result; ``side`` for one value per pixel of the input.
    """
    height, width = values.shape
    target = round(side / crop_share)
    if stretch:
        size = (target, target)
    elif width <= height:
        size = (target, round(target * height / width))
    else:
        size = (round(target * width / height), target)
    left, top = (round((length - side) / 2) for length in size)
    along = (np.arange(pixels) + 0.5) * side / pixels
    columns = ((left + along) * width / size[0]).astype(np.int64).clip(0, width - 1)
    rows = ((top + along) * height / size[1]).astype(np.int64).clip(0, height - 1)
    return np.ascontiguousarray(values[np.ix_(rows, columns)])


def eigen_crop(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return depth [H, W] with 0, unknown, outside Eigen's crop."""
    height, width = depth.shape
    rows, columns = (
        slice(*(round(share * length) for share in shares))
        for shares, length in ((EIGEN_ROWS, height), (EIGEN_COLUMNS, width))
    )
    inner = np.zeros_like(depth)
    inner[rows, columns] = depth[rows, columns]
    return inner
