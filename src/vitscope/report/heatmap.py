"""A view and the activation over it, as images that stand inside the page."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitscope.figures.heat import heat_colours

VIEW_SIDE = 176
"""Pixels a side of an embedded view: sharp enough at about 150 on screen, small in bytes."""

JPEG_QUALITY = 82


def view_jpeg(view: NDArray[np.uint8], side: int = VIEW_SIDE) -> str:
    """Return bytes [3, H, W] as the data URI of a JPEG, at most ``side`` pixels a side."""
    return _data_uri("image/jpeg", view_jpeg_bytes(view, side))


def view_jpeg_bytes(view: NDArray[np.uint8], side: int = VIEW_SIDE) -> bytes:
    """Return bytes [3, H, W] as a JPEG, at most ``side`` pixels a side."""
    image = Image.fromarray(np.ascontiguousarray(np.moveaxis(view, 0, -1)))
    if max(image.size) > side:
        image = image.resize((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


def heat_png(activation: NDArray[np.float64], peak: float) -> str:
    """Return what :func:`heat_png_bytes` does as a data URI."""
    return _data_uri("image/png", heat_png_bytes(activation, peak))


def heat_png_bytes(activation: NDArray[np.float64], peak: float) -> bytes:
    """Return a map [p, p] as a PNG of p × p pixels, transparent where it is silent.

    Args:
        activation: of one view; negative and undefined entries count as silent.
        peak: the activation that takes the strongest colour, common to both views of a pair.
    """
    colour = heat_colours(activation, peak)
    buffer = io.BytesIO()
    Image.fromarray(np.round(255 * colour).astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
