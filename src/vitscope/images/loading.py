"""Batches of squares: decoded and resized by threads, in order, a little ahead of their use."""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitscope.axes import UInt8
from vitscope.errors import ImageSetError
from vitscope.images.decode import UnreadableImageError
from vitscope.images.sources import ImageRef, open_image
from vitscope.progress import track

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

THREAD_NAME = "vitscope-images"

_AHEAD_PER_WORKER = 8
"""Items begun ahead of the one awaited: enough that one large image does not idle the others."""

_MAX_ASPECT = 64
"""A longer strip is cut to this aspect ratio first: resized whole, it could fill the memory."""

BATCHES_AHEAD = 2
"""Batches in preparation while one is used: three in memory in all."""


def worker_count(workers: int) -> int:
    """Return ``workers``, or one per core that this process may use when it is 0."""
    if workers > 0:
        return workers
    if hasattr(os, "sched_getaffinity"):  # not on macOS or Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ordered_map(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, workers: int, ahead: int
) -> Generator[_Result]:
    """Yield ``function(item)`` for every item, in order, computed by threads.

    PIL decodes and resizes without holding the interpreter's lock, so threads use all cores.
    An exception of ``function`` is raised in its turn. When the generator ends, is closed, or is
    interrupted, what has not started is dropped and no thread is left.

    Args:
        function: called in a worker thread.
        items: taken only as results are.
        workers: threads; 0 takes one per core.
        ahead: at most so many items are begun beyond the last one yielded.
    """
    pool = ThreadPoolExecutor(worker_count(workers), thread_name_prefix=THREAD_NAME)
    remaining = iter(items)
    try:
        begun = deque[Future[_Result]]()
        begun.extend(pool.submit(function, item) for item in islice(remaining, ahead))
        while begun:
            result = begun.popleft().result()
            begun.extend(pool.submit(function, item) for item in islice(remaining, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def tracked_map(
    function: Callable[[_Item], _Result], items: Sequence[_Item], task: str, unit: str, workers: int
) -> Generator[_Result]:
    """Yield as :func:`ordered_map` does, some items ahead, and show progress.

    Args:
        function: called in a worker thread.
        items: all of them.
        task: what is being done, as progress says it.
        unit: of items, plural.
        workers: threads; 0 takes one per core.
    """
    ahead = _AHEAD_PER_WORKER * worker_count(workers)
    with (
        track(task, len(items), unit) as progress,
        closing(ordered_map(function, items, workers=workers, ahead=ahead)) as results,
    ):
        for result in results:
            yield result
            progress.advance()


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


@dataclass(frozen=True)
class LoadedBatch:
    """Some images of a set, prepared.

    Attributes:
        indices: their positions in the references that were asked for.
        images: their bytes, one row each.
    """

    indices: list[int]
    images: UInt8[Tensor, "B ..."]


@dataclass
class LoadClock:
    """Time spent on loading, apart from what the batches are then used for.

    Attributes:
        images: decoded and prepared so far.
        worker_seconds: time that worker threads spent on them, summed over threads.
        waited_seconds: time that the consumer stood still for them.
    """

    images: int = 0
    worker_seconds: float = 0.0
    waited_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Images per second of one worker; 0 before the first."""
        return self.images / self.worker_seconds if self.worker_seconds else 0.0


def load_batches(
    refs: Sequence[ImageRef],
    prepare: Callable[[Image.Image], Tensor],
    *,
    batch_size: int,
    workers: int,
    max_pixels: int,
    clock: LoadClock | None = None,
    parts: Sequence[int] | None = None,
) -> Generator[LoadedBatch]:
    """Yield every image of ``refs`` in order; the last batch may be smaller.

    Close the generator, or use it up, and no thread is left.

    Args:
        refs: verified images.
        prepare: RGB image -> uint8 tensor, equal shapes for all; called in a worker thread.
        batch_size: images per batch.
        workers: threads; 0 takes one per core.
        max_pixels: as for verification.
        clock: accumulates the time spent.
        parts: lengths of the parts of ``refs`` that no batch may straddle; None is one part.

    Raises:
        ImageSetError: a file no longer decodes.
    """
    clock = clock or LoadClock()

    def load(ref: ImageRef) -> tuple[Tensor, float]:
        started = time.perf_counter()
        prepared = prepare(_decode_again(ref, max_pixels))
        return prepared, time.perf_counter() - started

    with closing(
        ordered_map(load, refs, workers=workers, ahead=BATCHES_AHEAD * batch_size)
    ) as loaded:
        for first, n in _batches([len(refs)] if parts is None else parts, batch_size):
            started = time.perf_counter()
            rows = list(islice(loaded, n))
            images = torch.stack([row for row, _ in rows])
            clock.images += len(rows)
            clock.worker_seconds += sum(seconds for _, seconds in rows)
            clock.waited_seconds += time.perf_counter() - started
            yield LoadedBatch(list(range(first, first + len(rows))), images)


def _batches(parts: Sequence[int], batch_size: int) -> Iterator[tuple[int, int]]:
    """Yield the first position and the length of every batch."""
    first = 0
    for length in parts:
        for start in range(0, length, batch_size):
            n = min(batch_size, length - start)
            yield first, n
            first += n


def _decode_again(ref: ImageRef, max_pixels: int) -> Image.Image:
    try:
        return open_image(ref, max_pixels=max_pixels)
    except UnreadableImageError as error:
        raise ImageSetError(
            f"{ref.path} changed since it was verified ({error.reason}); run again"
        ) from error
