"""Grey images of more than 8 bits: one rule for each range, since PIL itself clips at 255."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HIGH_DEPTH_MODES = frozenset(("I;16", "I;16L", "I;16B", "I;16N", "I", "F"))

_WHITE_8 = 255.0
_WHITE_16 = 65535.0


def eight_bit_grey(image: Image.Image) -> Image.Image:
    """Scale an image of one of :data:`HIGH_DEPTH_MODES` to 8-bit grey, rounding to nearest.

    White is 65535 for integers (PIL scales other depths to it) and 1, 255 or 65535 for floats,
    the smallest that holds every value. Values outside the range (signed, 32-bit, elevations)
    have no nominal white: their minimum becomes black and their maximum white.

    Raises:
        ValueError: no pixel is finite.
    """
    values = np.asarray(image).astype(np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("no pixel has a finite value")
    low, high = float(values[finite].min()), float(values[finite].max())
    black, white = _nominal_range(low, high, integers=image.mode != "F")
    scaled = (np.nan_to_num(values, nan=black, posinf=white, neginf=black) - black) * (
        _WHITE_8 / (white - black)
    )
    grey: NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
    return Image.fromarray(grey)


def _nominal_range(low: float, high: float, *, integers: bool) -> tuple[float, float]:
    whites = (_WHITE_16,) if integers else (1.0, _WHITE_8, _WHITE_16)
    for white in whites:
        if low >= 0 and high <= white:
            return 0.0, white
    return low, high if high > low else low + 1
