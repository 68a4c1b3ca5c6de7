"""One unbroken pass over images, handed out chunk by chunk: decoding never waits at a chunk's end.

A pass keeps its results chunk by chunk so that it can be resumed. Were each chunk a pass of its
own, the network would stand still at each beginning until the first images are decoded.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Self

from PIL.Image import Image
from torch import Tensor

from vitscope.backbones.backbone import Backbone
from vitscope.images.sources import ImageRef
from vitscope.progress import Tracker
from vitscope.tokens.forward import EncodedBatch, PassClock, ReadingSettings, encode_images


class ChunkedEncoding(AbstractContextManager["ChunkedEncoding"]):
    """Tokens of images, for chunks asked for in ascending order, with gaps where some stand.

    Attributes:
        chunks: positions of the images of each chunk, adjacent and ascending.
    """

    def __init__(
        self,
        backbone: Backbone,
        refs: Sequence[ImageRef],
        prepare: Callable[[Image], Tensor],
        reading: ReadingSettings,
        *,
        chunk_images: int,
        clock: PassClock,
        progress: Tracker,
    ) -> None:
        starts = range(0, len(refs), chunk_images)
        self.chunks = [range(start, min(start + chunk_images, len(refs))) for start in starts]
        self._backbone, self._refs, self._prepare = backbone, refs, prepare
        self._reading, self._clock, self._progress = reading, clock, progress
        self._stream: Generator[EncodedBatch] | None = None
        self._begun = self._next = 0

    def batches(self, chunk: range) -> Iterator[EncodedBatch]:
        """Yield the batches of one chunk; a batch's ``indices`` count from the chunk's start."""
        if self._stream is None or self._next != chunk.start:
            self._begin(chunk.start)
        assert self._stream is not None
        while self._next < chunk.stop:
            batch = next(self._stream)
            self._next += len(batch.indices)
            shifted = [self._begun + index - chunk.start for index in batch.indices]
            yield replace(batch, indices=shifted)
            self._progress.advance(len(shifted))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the decoding threads."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def _begin(self, start: int) -> None:
        self._close()
        lengths = [len(chunk) for chunk in self.chunks if chunk.start >= start]
        self._stream = encode_images(
            self._backbone,
            self._refs[start:],
            self._prepare,
            self._reading,
            clock=self._clock,
            parts=lengths,
        )
        self._begun = self._next = start

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream = None
