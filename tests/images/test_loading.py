"""Loading: order, bounded prefetch, prompt ends, and the clock."""

import random
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vitscope.errors import ImageSetError
from vitscope.images.loading import (
    BATCHES_AHEAD,
    THREAD_NAME,
    LoadClock,
    load_batches,
    ordered_map,
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
