"""Decoding one file, whatever it holds: upright RGB with 8 bits a channel, or a plain reason.

Colour profiles are not applied: pixels are taken as sRGB, as timm and torchvision do.
"""

import io
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vitscope.errors import ImageSetError, VitscopeError
from vitscope.images.formats import HEAD_BYTES, PIL_FORMATS, pil_formats

PIL_PIXEL_LIMIT = 178_956_970
"""What PIL itself refuses to exceed, twice ``Image.MAX_IMAGE_PIXELS``: half a gibibyte of RGB."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes the image upright."""

_PIL_MODULES = r"PIL\."
_ORIENTATION_TAG = 0x0112
_SIDEWAYS = frozenset((5, 6, 7, 8))
_JPEG_START = b"\xff\xd8"


HIGH_DEPTH_MODES = frozenset(("I;16", "I;16L", "I;16B", "I;16N", "I", "F"))

_WHITE_8 = 255.0
_WHITE_16 = 65535.0


class UnreadableImageError(VitscopeError):
    """A file that cannot be used as an image; ``reason`` says why in a few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_file(path: Path) -> bytes:
    """Return the bytes of an image file.

    Raises:
        UnreadableImageError: it is missing, empty, not a regular file, or may not be read.
    """
    try:
        if not path.is_file():  # a pipe would block for ever
            there = path.exists()
            raise UnreadableImageError("not a regular file" if there else "file does not exist")
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"cannot be read: {error.strerror}") from error
    if not data:
        raise UnreadableImageError("empty file (0 bytes)")
    return data


def decode_image(path: Path, *, max_pixels: int) -> Image.Image:
    """Decode a file to RGB, rotated as its EXIF says; transparency goes onto white.

    Grey, CMYK and palette images are converted; 16-bit, integer and float images are scaled to
    8 bits (:func:`eight_bit_grey`); of an animation the first frame is taken.

    Raises:
        UnreadableImageError: the file is truncated, empty, not an image, too large, …
    """
    return decode_bytes(read_file(path), max_pixels=max_pixels)


def decode_bytes(data: bytes, *, max_pixels: int) -> Image.Image:
    """Decode the bytes of a file, as :func:`decode_image` does."""
    with opened_image(data, max_pixels) as image:
        image.load()
        upright = _UPRIGHT.get(_orientation(image))
        rgb = _to_rgb(image)
        return rgb if upright is None else rgb.transpose(upright)


def check_bytes(data: bytes, *, max_pixels: int) -> tuple[int, int]:
    """Decode the bytes of a file only to see that it can be done; faster than decoding for use.

    Returns:
        width and height of the upright image, in pixels.

    Raises:
        UnreadableImageError: as :func:`decode_image`.
    """
    if not data.startswith(_JPEG_START):
        return decode_bytes(data, max_pixels=max_pixels).size
    with opened_image(data, max_pixels) as image:
        width, height = image.size
        sideways = _orientation(image) in _SIDEWAYS
        # reads every coded byte, but transforms only an eighth of each side, without colour
        image.draft("L", (1, 1))
        image.load()
        return (height, width) if sideways else (width, height)


@contextmanager
def opened_image(source: bytes | Path, max_pixels: int = PIL_PIXEL_LIMIT) -> Generator[Image.Image]:
    """Open a file, or its bytes, without loading pixels; what PIL raises in the block counts too.

    Raises:
        UnreadableImageError: as :func:`decode_image`.
    """
    _silence_pil()
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        formats, unread = _formats_of(source)
        if unread is not None:
            raise UnreadableImageError(unread)
        with Image.open(file, formats=formats) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise UnreadableImageError(
                    f"too many pixels: {width} x {height}, more than max_pixels = {max_pixels}"
                )
            yield image
    except VitscopeError:
        raise  # our own word on it
    except UnidentifiedImageError:
        raise UnreadableImageError("not an image in a format that is read here") from None
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(f"too many pixels: {error}") from error
    except MemoryError as error:
        raise UnreadableImageError("not enough memory to decode it") from error
    except Exception as error:  # PIL's readers raise nearly anything on damaged bytes
        message = str(error) or type(error).__name__
        kind = "truncated" if "truncated" in message.lower() else "damaged"
        raise UnreadableImageError(f"{kind}: {message}") from error


def _formats_of(source: bytes | Path) -> tuple[tuple[str, ...], str | None]:
    """Return what PIL may try, and why not; a file of labels is in one of PIL's own formats."""
    return pil_formats(source[:HEAD_BYTES]) if isinstance(source, bytes) else (PIL_FORMATS, None)


@contextmanager
def opened_raw(path: Path, what: str) -> Generator[Image.Image]:
    """Open a file whose numbers are labels or depths, unconverted; pixels are not loaded.

    Args:
        path: of the file.
        what: it should be, for messages: "a mask", "depth".

    Raises:
        ImageSetError: it cannot be read, or has too many pixels.
    """
    if not path.is_file():  # a pipe would block for ever
        raise ImageSetError(f"{path} cannot be read as {what}: it is no regular file")
    try:
        with opened_image(path) as picture:
            yield picture
    except UnreadableImageError as error:
        raise ImageSetError(f"{path} cannot be read as {what}: {error.reason}") from None


def decode_labelled(path: Path) -> Image.Image:
    """Decode an image of a labelled set, which cannot be skipped as a loose one can.

    Raises:
        ImageSetError: it cannot be decoded.
    """
    try:
        return decode_image(path, max_pixels=PIL_PIXEL_LIMIT)
    except UnreadableImageError as error:
        raise ImageSetError(
            f"{path}: {error.reason}; restore it, or remove it with its label"
        ) from error


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


def _silence_pil() -> None:
    """Keep PIL's warnings (corrupt EXIF, …) from the user: what matters becomes a reason.

    ``warnings.catch_warnings`` is not safe among threads, so the filter stays once it is set.
    """
    first = warnings.filters[0] if warnings.filters else None
    if first is None or getattr(first[3], "pattern", None) != _PIL_MODULES:
        warnings.filterwarnings("ignore", module=_PIL_MODULES)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a damaged tag says nothing about the pixels
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in HIGH_DEPTH_MODES:
        return eight_bit_grey(image).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
