"""From a photograph of any shape to a square of bytes (protocol, section 4)."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitscope.axes import UInt8

_MAX_ASPECT = 64
"""A longer strip is cut to this aspect ratio first: resized whole, it could fill the memory."""


def to_square(
    image: Image.Image, side: int, crop_share: float = 1.0, *, stretch: bool = False
) -> UInt8[Tensor, "3 H W"]:
    """Resize an RGB image and take its centre square, bytes to bytes.

    The shorter side becomes ``round(side / crop_share)``, the longer one keeps the aspect ratio
    (rounded), by PIL's antialiased bicubic filter.

    Args:
        image: RGB.
        side: H and W of the result, in pixels.
        crop_share: share of the resized shorter side that the crop keeps (timm's ``crop_pct``).
        stretch: give up the aspect ratio, so that the crop loses nothing of the longer side.
    """
    if side < 1 or not 0 < crop_share <= 1:
        raise ValueError(f"side {side} must be positive, crop_share {crop_share} in (0, 1]")
    target = round(side / crop_share)
    strip = image if stretch else _bounded_strip(image)
    size = (target, target) if stretch else _proportional(strip.size, target)
    resized = strip.resize(size, Image.Resampling.BICUBIC)
    left, top = (round((length - side) / 2) for length in size)
    square = resized.crop((left, top, left + side, top + side))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


def _proportional(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    width, height = size
    if width <= height:
        return shorter, round(shorter * height / width)
    return round(shorter * width / height), shorter


def _bounded_strip(image: Image.Image) -> Image.Image:
    width, height = (min(length, _MAX_ASPECT * min(image.size)) for length in image.size)
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
