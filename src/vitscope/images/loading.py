"""Batches of prepared images: decoded by threads, in order, a little ahead of their use."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import torch
from PIL import Image
from torch import Tensor

from vitscope.axes import UInt8
from vitscope.errors import ImageSetError
from vitscope.images.decode import UnreadableImageError
from vitscope.images.opening import open_image
from vitscope.images.parallel import ordered_map
from vitscope.images.sources import ImageRef

PREFETCH_BATCHES = 2
"""Batches in preparation while one is used: three in memory in all."""


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
        ordered_map(load, refs, workers=workers, ahead=PREFETCH_BATCHES * batch_size)
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
