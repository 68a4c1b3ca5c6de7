"""Squares of bytes, and batches of them: in order, by threads, a little ahead."""

import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from vitscope.errors import ImageSetError
from vitscope.images.loading import (
    BATCHES_AHEAD,
    THREAD_NAME,
    LoadClock,
    load_batches,
    ordered_map,
    to_square,
    worker_count,
)
from vitscope.images.sources import ImageFolder, ImageRef


@pytest.fixture
def refs(tmp_path: Path) -> tuple[ImageRef, ...]:
    """Forty small images; the red of each is its index."""
    for i in range(40):
        Image.new("RGB", (6, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
    return ImageFolder(tmp_path).refs


def as_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def image_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(THREAD_NAME)]


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (7, 4), (40, 0), (64, 2)])
def test_every_image_once_in_order(
    refs: tuple[ImageRef, ...], batch_size: int, workers: int
) -> None:
    chance = random.Random(0)

    def late(image: Image.Image) -> Tensor:
        time.sleep(chance.random() / 500)  # so that threads finish out of order
        return as_tensor(image)

    batches = list(load_batches(refs, late, batch_size=batch_size, workers=workers, max_pixels=100))
    assert [i for batch in batches for i in batch.indices] == list(range(40))
    assert all(len(batch.indices) == batch_size for batch in batches[:-1])
    images = torch.cat([batch.images for batch in batches])
    assert images.dtype == torch.uint8
    assert images.shape == (40, 3, 4, 6)
    assert images[:, 0, 2, 3].tolist() == list(range(40))
    assert image_threads() == []


def test_prefetch_is_bounded(refs: tuple[ImageRef, ...]) -> None:
    begun = 0
    lock = threading.Lock()

    def count(image: Image.Image) -> Tensor:
        nonlocal begun
        with lock:
            begun += 1
        return as_tensor(image)

    batches = load_batches(refs, count, batch_size=4, workers=4, max_pixels=100)
    assert begun == 0  # nothing before the first batch is asked for
    for used, _ in enumerate(batches, start=1):
        time.sleep(0.05)
        assert begun == min(4 * (used + BATCHES_AHEAD), 40)


def test_closing_early_leaves_no_threads_and_starts_nothing_more(
    refs: tuple[ImageRef, ...],
) -> None:
    begun: list[int] = []

    def slow(image: Image.Image) -> Tensor:
        begun.append(1)
        time.sleep(0.02)
        return as_tensor(image)

    batches = load_batches(refs, slow, batch_size=2, workers=2, max_pixels=100)
    next(batches)
    assert image_threads()
    batches.close()
    assert image_threads() == []
    assert len(begun) <= 2 + 2 * BATCHES_AHEAD


def test_ctrl_c_while_waiting_ends_at_once(refs: tuple[ImageRef, ...]) -> None:
    def very_slow(image: Image.Image) -> Tensor:
        time.sleep(0.3)
        return as_tensor(image)

    batches = load_batches(refs, very_slow, batch_size=20, workers=1, max_pixels=100)
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(batches)
    assert time.monotonic() - started < 2  # twenty images would take six seconds
    timer.join()
    assert image_threads() == []


def test_a_file_that_changed_is_an_error_in_its_turn(refs: tuple[ImageRef, ...]) -> None:
    refs[25].path.write_bytes(b"")
    batches = load_batches(refs, as_tensor, batch_size=10, workers=3, max_pixels=100)
    assert next(batches).indices == list(range(10))
    assert next(batches).indices == list(range(10, 20))
    with pytest.raises(ImageSetError, match=r"25\.png changed since .*empty file.*run again"):
        next(batches)
    assert image_threads() == []


def test_an_error_of_the_preparation_is_not_disguised(refs: tuple[ImageRef, ...]) -> None:
    def broken(_: Image.Image) -> Tensor:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        next(load_batches(refs, broken, batch_size=4, workers=2, max_pixels=100))
    assert image_threads() == []


def test_the_clock_counts_what_was_used(refs: tuple[ImageRef, ...]) -> None:
    def slow(image: Image.Image) -> Tensor:
        time.sleep(0.01)
        return as_tensor(image)

    clock = LoadClock()
    assert clock.rate == 0
    batches = load_batches(refs, slow, batch_size=8, workers=2, max_pixels=100, clock=clock)
    next(batches)
    assert clock.images == 8
    for _ in batches:
        pass
    assert clock.images == 40
    assert clock.worker_seconds >= 0.4
    assert clock.waited_seconds > 0
    assert clock.rate == pytest.approx(40 / clock.worker_seconds)


def test_an_empty_set_yields_nothing() -> None:
    assert list(load_batches([], as_tensor, batch_size=4, workers=1, max_pixels=1)) == []


def test_items_of_a_map_are_taken_only_as_needed() -> None:
    taken: list[int] = []

    def items():
        for i in range(100):
            taken.append(i)
            yield i

    results = ordered_map(lambda x: x * x, items(), workers=2, ahead=5)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(taken) == 3 + 5
    results.close()


def test_worker_count() -> None:
    assert worker_count(3) == 3
    assert worker_count(0) >= 1


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
