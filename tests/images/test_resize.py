"""From any shape to a square: sizes, exactness against PIL itself, determinism."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vitscope.images.loading import to_square


def picture(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    side=st.integers(1, 64),
    crop_share=st.sampled_from([1.0, 0.95, 0.9, 0.875, 0.5]),
    stretch=st.booleans(),
)
def test_shape_and_determinism(
    width: int, height: int, side: int, crop_share: float, stretch: bool
) -> None:
    image = picture(width, height)
    before = image.tobytes()
    square = to_square(image, side, crop_share, stretch=stretch)
    assert square.shape == (3, side, side)
    assert square.dtype == torch.uint8
    assert square.is_contiguous()
    assert torch.equal(square, to_square(image, side, crop_share, stretch=stretch))
    assert image.tobytes() == before


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (333, 500), (64, 64), (17, 901)])
@pytest.mark.parametrize(("side", "crop_share"), [(224, 1.0), (224, 0.9), (240, 0.875), (30, 1.0)])
def test_resize_then_centre_crop(size: tuple[int, int], side: int, crop_share: float) -> None:
    image = picture(*size)
    target = round(side / crop_share)
    scaled = tuple(
        target if length == min(size) else round(target * length / min(size)) for length in size
    )
    resized = np.asarray(image.resize((scaled[0], scaled[1]), Image.Resampling.BICUBIC))
    left, top = round((scaled[0] - side) / 2), round((scaled[1] - side) / 2)
    expected = resized[top : top + side, left : left + side].transpose(2, 0, 1)
    np.testing.assert_array_equal(to_square(image, side, crop_share).numpy(), expected)


def test_the_right_size_already_is_left_untouched() -> None:
    image = picture(48, 48)
    np.testing.assert_array_equal(to_square(image, 48).permute(1, 2, 0).numpy(), np.asarray(image))
    wide = picture(68, 48)
    np.testing.assert_array_equal(
        to_square(wide, 48).permute(1, 2, 0).numpy(), np.asarray(wide)[:, 10:58]
    )


def test_stretch_keeps_the_whole_image() -> None:
    values = np.zeros((40, 80, 3), dtype=np.uint8)
    values[:, :10] = 255  # the centre square does not hold these columns
    image = Image.fromarray(values)
    assert to_square(image, 40).max() == 0
    stretched = to_square(image, 40, stretch=True)
    assert stretched[:, :, :4].min() > 200
    assert stretched[:, :, 7:].max() < 50


@pytest.mark.parametrize("size", [(100_000, 1), (2, 60_000)])
def test_a_long_strip_does_not_fill_the_memory(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    resize = Image.Image.resize

    def watched(image: Image.Image, asked: tuple[int, int], *options: Any) -> Image.Image:
        # the first, whole, would be 22,400,000 pixels wide: 15 GB
        assert asked[0] * asked[1] <= 64 * 224 * 224
        return resize(image, asked, *options)

    monkeypatch.setattr(Image.Image, "resize", watched)
    assert to_square(Image.new("RGB", size, (9, 8, 7)), 224)[:, 0, 0].tolist() == [9, 8, 7]


@pytest.mark.parametrize(("side", "crop_share"), [(0, 1.0), (8, 0.0), (8, 1.1)])
def test_impossible_squares(side: int, crop_share: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        to_square(picture(9, 9), side, crop_share)
