"""More than 8 bits: the scaling is checked value by value against integer arithmetic."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vitscope.images.decode import UnreadableImageError, decode_bytes

ALL_16 = np.arange(65536, dtype=np.uint16).reshape(256, 256)
NEAREST = ((ALL_16.astype(np.int64) * 2 * 255 + 65535) // (2 * 65535)).astype(np.uint8)
"""v * 255 / 65535 to the nearest integer; no value lies halfway."""


def grey(data: bytes) -> NDArray[np.uint8]:
    image = np.asarray(decode_bytes(data, max_pixels=10**6))
    assert image.shape[2] == 3
    assert (image == image[..., :1]).all()
    return image[..., 0]


def tiff(values: NDArray[Any]) -> bytes:
    data = io.BytesIO()
    Image.fromarray(values).save(data, "TIFF")
    return data.getvalue()


def test_16_bit_png_and_tiff() -> None:
    png = io.BytesIO()
    Image.fromarray(ALL_16).save(png, "PNG")
    assert Image.open(png).mode == "I;16"
    np.testing.assert_array_equal(grey(png.getvalue()), NEAREST)
    np.testing.assert_array_equal(grey(tiff(ALL_16)), NEAREST)


def test_big_endian_tiff() -> None:
    picture = Image.frombytes("I;16B", (256, 256), ALL_16.astype(">u2").tobytes())
    data = io.BytesIO()
    picture.save(data, "TIFF")
    np.testing.assert_array_equal(grey(data.getvalue()), NEAREST)


@pytest.mark.parametrize("white", [65535, 4095, 1023])
def test_16_bit_pgm_of_any_white(white: int) -> None:
    values = np.linspace(0, white, 300).round().astype(">u2")
    data = f"P5 300 1 {white}\n".encode() + values.tobytes()
    exact = values.astype(np.float64) * 255 / white
    assert np.abs(grey(data)[0] - exact).max() <= 0.51  # half a level, and PIL's own rounding


def test_32_bit_integers_in_the_16_bit_range_are_taken_for_16_bit() -> None:
    np.testing.assert_array_equal(grey(tiff(ALL_16.astype(np.int32))), NEAREST)


@pytest.mark.parametrize("values", [[-5, 0, 5], [100_000, 150_000, 200_000]])
def test_integers_outside_it_are_stretched(values: list[int]) -> None:
    np.testing.assert_array_equal(grey(tiff(np.array([values], dtype=np.int32))), [[0, 128, 255]])


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_floats_by_the_smallest_white_that_holds_them(white: float) -> None:
    values = np.array([[0, 0.25, 0.5, 1]], dtype=np.float32) * np.float32(white)
    np.testing.assert_array_equal(grey(tiff(values)), [[0, 64, 128, 255]])


def test_floats_that_are_not_finite() -> None:
    values = np.array([[0.0, np.nan, np.inf, -np.inf, 1.0]], dtype=np.float32)
    np.testing.assert_array_equal(grey(tiff(values)), [[0, 0, 255, 0, 255]])
    with pytest.raises(UnreadableImageError, match="no pixel has a finite value"):
        grey(tiff(np.full((2, 2), np.nan, dtype=np.float32)))


def test_a_constant_image_outside_every_range_is_black() -> None:
    assert grey(tiff(np.full((2, 2), -7.5, dtype=np.float32))).max() == 0
