"""Decoding: every kind of file becomes upright 8-bit RGB, or gives a reason."""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from vitscope.images.decode import (
    PIL_PIXEL_LIMIT,
    UnreadableImageError,
    check_bytes,
    decode_bytes,
    decode_image,
)

Bytes = NDArray[np.uint8]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def decoded(data: bytes) -> Bytes:
    image = decode_bytes(data, max_pixels=PIL_PIXEL_LIMIT)
    assert image.mode == "RGB"
    assert check_bytes(data, max_pixels=PIL_PIXEL_LIMIT) == image.size
    return np.asarray(image)


def reason(data: bytes, *, max_pixels: int = PIL_PIXEL_LIMIT) -> str:
    """The reason, which the quick check must give just as decoding does."""
    with pytest.raises(UnreadableImageError) as quick:
        check_bytes(data, max_pixels=max_pixels)
    with pytest.raises(UnreadableImageError) as full:
        decode_bytes(data, max_pixels=max_pixels)
    assert quick.value.reason == full.value.reason == str(full.value)
    return full.value.reason


def noise(height: int, width: int, channels: int = 3) -> Bytes:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def on_white(colour: Bytes, alpha: Bytes) -> NDArray[np.float64]:
    share = alpha.astype(np.float64)[..., None] / 255
    return colour * share + 255 * (1 - share)


# EXIF 2.3, tag 274: (visual side of the stored 0th row, visual side of the stored 0th column)
EXIF_SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def upright(stored: Bytes, orientation: int) -> Bytes:
    row_side, column_side = EXIF_SIDES[orientation]
    if row_side in ("left", "right"):  # stored rows are visual columns
        stored = stored.transpose(1, 0, 2)
        row_side, column_side = column_side, row_side
    stored = stored[::-1] if row_side == "bottom" else stored
    return stored[:, ::-1] if column_side == "right" else stored


@pytest.mark.parametrize("orientation", EXIF_SIDES)
def test_exif_orientation(orientation: int) -> None:
    stored = noise(5, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(stored)
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        data = encoded(picture, kind, exif=exif, **options)
        np.testing.assert_array_equal(decoded(data), upright(stored, orientation))
    # JPEG is lossy, yet it turns whole blocks: compare with the same file without the tag
    large = Image.fromarray(stored).resize((48, 80), Image.Resampling.NEAREST)
    plain = decoded(encoded(large, "JPEG"))
    np.testing.assert_array_equal(
        decoded(encoded(large, "JPEG", exif=exif)), upright(plain, orientation)
    )


@pytest.mark.parametrize("orientation", [0, 9, 4711])
def test_an_orientation_that_does_not_exist_is_none(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = noise(4, 6)
    data = encoded(Image.fromarray(stored), "PNG", exif=exif)
    np.testing.assert_array_equal(decoded(data), stored)


def test_damaged_exif_neither_warns_nor_costs_the_image() -> None:
    picture = Image.fromarray(noise(16, 16))
    plain = decoded(encoded(picture, "JPEG"))
    for exif in (b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01", b"Exif\0\0garbage", b"Exif\0\0"):
        np.testing.assert_array_equal(decoded(encoded(picture, "JPEG", exif=exif)), plain)


def test_pil_warnings_stay_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # PIL warns from 11 to 20 pixels
    data = encoded(Image.fromarray(noise(4, 4)), "PNG")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("the recorder works", stacklevel=1)
        decoded(data)
    assert [str(warning.message) for warning in caught] == ["the recorder works"]


def test_grey_and_bilevel() -> None:
    grey = noise(7, 9, 1)[..., 0]
    for kind in ("PNG", "BMP", "PPM", "TIFF"):
        picture = decoded(encoded(Image.fromarray(grey), kind))
        np.testing.assert_array_equal(picture, np.repeat(grey[..., None], 3, axis=2))
    bits = decoded(encoded(Image.fromarray(grey > 100), "PNG"))
    np.testing.assert_array_equal(bits[..., 1], np.where(grey > 100, 255, 0))


def test_cmyk_jpeg() -> None:
    inks = np.array(
        [[0, 0, 0, 0], [0, 255, 255, 0], [255, 0, 0, 0], [0, 0, 0, 255], [60, 0, 0, 99]]
    )
    blocks = np.repeat(np.repeat(inks[None].astype(np.uint8), 16, axis=1), 16, axis=0)
    data = encoded(Image.frombytes("CMYK", (80, 16), blocks.tobytes()), "JPEG", quality=100)
    ink = blocks.astype(np.float64) / 255
    expected = 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])
    assert np.abs(decoded(data) - expected).max() <= 4


def test_palette_with_one_transparent_colour() -> None:
    index = np.array([[0, 1, 2], [2, 1, 0]], dtype=np.uint8)
    colours = np.array([[255, 0, 0], [0, 200, 0], [1, 2, 3]], dtype=np.uint8)
    picture = Image.frombytes("P", index.shape[::-1], index.tobytes())
    picture.putpalette(colours.tobytes())
    np.testing.assert_array_equal(decoded(encoded(picture, "PNG")), colours[index])
    shown = colours.copy()
    shown[1] = 255
    for kind in ("PNG", "GIF"):
        data = encoded(picture, kind, transparency=1)
        np.testing.assert_array_equal(decoded(data), shown[index])


def test_palette_with_an_alpha_for_each_colour() -> None:
    index = np.array([[0, 1, 2]], dtype=np.uint8)
    colours = np.array([[255, 0, 0], [0, 200, 0], [1, 2, 3]], dtype=np.uint8)
    alpha = np.array([0, 128, 255], dtype=np.uint8)
    picture = Image.frombytes("P", index.shape[::-1], index.tobytes())
    picture.putpalette(colours.tobytes())
    shown = decoded(encoded(picture, "PNG", transparency=alpha.tobytes()))
    assert np.abs(shown - on_white(colours[index], alpha[index])).max() <= 1


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_goes_onto_white(channels: int) -> None:
    values = noise(8, 8, channels)
    shown = decoded(encoded(Image.fromarray(values), "PNG"))
    assert np.abs(shown - on_white(values[..., :-1], values[..., -1])).max() <= 1


def test_a_transparent_colour_of_a_true_colour_png() -> None:
    values = np.array([[[9, 9, 9], [1, 2, 3]]], dtype=np.uint8)
    shown = decoded(encoded(Image.fromarray(values), "PNG", transparency=(9, 9, 9)))
    np.testing.assert_array_equal(shown, [[[255, 255, 255], [1, 2, 3]]])


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue", "lime")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert np.abs(decoded(data).astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.9, 0.99])
def test_truncated_files(kind: str, share: float) -> None:
    data = encoded(Image.fromarray(noise(64, 64)), kind)
    why = reason(data[: int(share * len(data))])
    assert why.startswith(("truncated", "damaged", "not an image"))
    if kind == "JPEG" and share > 0.3:
        assert why.startswith("truncated: image file is truncated")


def test_a_progressive_jpeg_may_not_be_cut_either() -> None:
    data = encoded(Image.fromarray(noise(64, 64)), "JPEG", progressive=True)
    decoded(data)
    for share in (0.3, 0.6, 0.95):
        assert "truncated" in reason(data[: int(share * len(data))])


def test_text_another_format_and_a_wrong_suffix(tmp_path: Path) -> None:
    assert reason(b"no photograph at all" * 9) == "not an image in a format that is read here"
    assert "not an image" in reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    right = tmp_path / "a png called.jpg"
    right.write_bytes(encoded(Image.fromarray(noise(4, 4)), "PNG"))
    np.testing.assert_array_equal(decode_image(right, max_pixels=16), noise(4, 4))


def test_files_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, why in {
        "empty.jpg": "empty file (0 bytes)",
        "folder.jpg": "not a regular file",
        "pipe.jpg": "not a regular file",
        "dangling.jpg": "file does not exist",
        "vanished.jpg": "file does not exist",
    }.items():
        with pytest.raises(UnreadableImageError) as error:
            decode_image(tmp_path / name, max_pixels=1)
        assert error.value.reason == why


def png_header(width: int, height: int) -> bytes:
    chunks = b"\x89PNG\r\n\x1a\n"
    for kind, body in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ):
        chunks += struct.pack(">I", len(body)) + kind + body
        chunks += struct.pack(">I", zlib.crc32(kind + body))
    return chunks


def test_bombs_are_refused_by_their_header() -> None:
    assert reason(png_header(5000, 4000), max_pixels=19_999_999) == (
        "too many pixels: 5000 x 4000, more than max_pixels = 19999999"
    )
    assert reason(png_header(90_000, 90_000)).startswith("too many pixels")
    assert "too many pixels" not in reason(png_header(500, 400), max_pixels=200_000)
    whole = encoded(Image.fromarray(noise(4, 5)), "JPEG")
    assert decode_bytes(whole, max_pixels=20).size == (5, 4)
    assert "5 x 4" in reason(whole, max_pixels=19)


SOUND = [encoded(Image.fromarray(noise(24, 17)), kind) for kind in ("JPEG", "PNG", "GIF", "TIFF")]


@given(
    st.sampled_from(SOUND),
    st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=4)), max_size=4),
    st.floats(0, 1),
)
def test_no_damage_raises_anything_else(
    sound: bytes, edits: list[tuple[int, bytes]], share: float
) -> None:
    """Whatever the bytes: an image or a reason, and the quick check foretells which."""
    data = bytearray(sound)
    for place, value in edits:
        start = place % len(data)
        data[start : start + len(value)] = value
    data = data[: len(data) if share > 0.5 else int(2 * share * len(data))]
    try:
        size = check_bytes(bytes(data), max_pixels=10**6)
    except UnreadableImageError:
        with pytest.raises(UnreadableImageError):
            decode_bytes(bytes(data), max_pixels=10**6)
    else:
        assert decode_bytes(bytes(data), max_pixels=10**6).size == size


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
