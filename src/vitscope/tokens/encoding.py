"""Photographs through a backbone: decoded on threads, encoded in batches, kept part by part."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL.Image import Image
from torch import Tensor

from vitscope.backbones.backbone import Backbone, BlockTokens
from vitscope.errors import BackboneError
from vitscope.images.loading import LoadClock, load_batches, to_square, worker_count
from vitscope.images.sources import ImageRef
from vitscope.progress import Tracker, track
from vitscope.store.parts import shared_parts


@dataclass(frozen=True)
class LoaderOptions:
    """How images are loaded for a forward pass.

    Attributes:
        batch_size: images per batch.
        workers: decoding threads; 0 is one per core.
        max_pixels: an image with more is refused.
    """

    batch_size: int = 32
    workers: int = 0
    max_pixels: int = 178_956_970


@dataclass
class PassClock:
    """Where the time of a pass over images went."""

    load: LoadClock = field(default_factory=LoadClock)
    encode_seconds: float = 0.0
    n_encoded: int = 0

    def rates(self, workers: int) -> dict[str, float]:
        """Return views decoded and encoded per second, each as if the other cost nothing."""
        decode = self.load.rate * worker_count(workers)
        encode = self.n_encoded / self.encode_seconds if self.encode_seconds else 0.0
        return {"decode_images_per_s": round(decode, 1), "encode_views_per_s": round(encode, 1)}


@dataclass(frozen=True)
class EncodedBatch:
    """A batch of prepared images and their tokens.

    Attributes:
        indices: position of each image in the references of the pass.
        pixels: what the backbone saw: bytes [B·V, 3, H, W] for V views per image, views adjacent.
        tokens: at the designated block, one row per view.
    """

    indices: list[int]
    pixels: UInt8[Tensor, "BV 3 H W"]
    tokens: BlockTokens


def encode_images(
    backbone: Backbone,
    refs: Sequence[ImageRef],
    prepare: Callable[[Image], Tensor],
    loader: LoaderOptions,
    *,
    clock: PassClock,
    progress: Tracker | None = None,
    parts: Sequence[int] | None = None,
) -> Generator[EncodedBatch]:
    """Yield the tokens of every image, batch by batch, in order.

    Args:
        backbone: read at its designated block.
        refs: verified images.
        prepare: RGB image -> bytes [3, H, W] or views [V, 3, H, W]; called in a worker thread.
        loader: batch size and decoding threads.
        clock: accumulates the time spent.
        progress: advanced by one per image.
        parts: lengths of the parts of ``refs`` that no batch may straddle; None is one part.

    Raises:
        BackboneError: an activation is NaN or infinite; the message names the image.
    """
    batches = load_batches(
        refs,
        prepare,
        batch_size=loader.batch_size,
        workers=loader.workers,
        max_pixels=loader.max_pixels,
        clock=clock.load,
        parts=parts,
    )
    with closing(batches):
        for batch in batches:
            pixels = batch.images.reshape(-1, *batch.images.shape[-3:])
            started = time.perf_counter()
            with torch.inference_mode():
                tokens = backbone.tokens(pixels)
            _require_finite(tokens, [refs[index].id for index in batch.indices], backbone)
            clock.encode_seconds += time.perf_counter() - started
            clock.n_encoded += len(pixels)
            yield EncodedBatch(batch.indices, pixels, tokens)
            if progress is not None:
                progress.advance(len(batch.indices))


class ChunkedEncoding:
    """One unbroken pass over images, handed out chunk by chunk: decoding never waits at an end.

    A pass keeps its results chunk by chunk so that it can be resumed. Were each chunk a pass of
    its own, the network would stand still at each beginning until the first images are decoded.
    Chunks are asked for in ascending order, with gaps where results stand already; after a gap the
    pass begins anew. Close it, and no decoding thread is left.

    Args:
        backbone: read at its designated block.
        refs: verified images.
        prepare: as of :func:`encode_images`.
        loader: batch size and decoding threads.
        chunk_images: images per chunk; no batch straddles two.
        clock: accumulates the time spent.
        progress: advanced by one per image.

    Attributes:
        chunks: positions of the images of each chunk, adjacent and ascending.
    """

    def __init__(
        self,
        backbone: Backbone,
        refs: Sequence[ImageRef],
        prepare: Callable[[Image], Tensor],
        loader: LoaderOptions,
        *,
        chunk_images: int,
        clock: PassClock,
        progress: Tracker,
    ) -> None:
        starts = range(0, len(refs), chunk_images)
        self.chunks = [range(start, min(start + chunk_images, len(refs))) for start in starts]
        self._refs, self._progress = refs, progress
        self._encode: Callable[[Sequence[ImageRef], list[int]], Generator[EncodedBatch]] = (
            lambda refs, lengths: encode_images(
                backbone, refs, prepare, loader, clock=clock, parts=lengths
            )
        )
        self._stream: Generator[EncodedBatch] | None = None
        self._begun = self._next = 0

    def batches(self, chunk: range) -> Iterator[EncodedBatch]:
        """Yield the batches of one chunk; a batch's ``indices`` count from the chunk's start."""
        if self._stream is None or self._next != chunk.start:
            self.close()
            lengths = [len(later) for later in self.chunks if later.start >= chunk.start]
            self._stream = self._encode(self._refs[chunk.start :], lengths)
            self._begun = self._next = chunk.start
        while self._next < chunk.stop:
            batch = next(self._stream)
            self._next += len(batch.indices)
            shifted = [self._begun + index - chunk.start for index in batch.indices]
            yield replace(batch, indices=shifted)
            self._progress.advance(len(shifted))

    def close(self) -> None:
        """Stop the decoding threads."""
        if self._stream is not None:
            self._stream.close()
        self._stream = None


def encode_in_parts(
    backbone: Backbone,
    refs: Sequence[ImageRef],
    prepare: Callable[[Image], Tensor],
    loader: LoaderOptions,
    reduce: Callable[[Sequence[ImageRef], Iterator[EncodedBatch]], dict[str, Tensor]],
    *,
    label: str,
    folder: Path,
    fingerprint: str,
    chunk_images: int,
    clock: PassClock,
) -> Generator[dict[str, Tensor]]:
    """Yield what ``reduce`` makes of each chunk of images, in order, through the disk.

    Parts that an earlier process has left are used again; several ranks share the chunks.

    Args:
        backbone: read at its designated block.
        refs: verified images.
        prepare: as of :func:`encode_images`.
        loader: batch size and decoding threads.
        reduce: called with a chunk's references and its batches, whose ``indices`` point into them.
        label: what the progress is called.
        folder: of the parts.
        fingerprint: of everything that decides them; parts of another are computed anew.
        chunk_images: images between two saved parts: what a kill may cost.
        clock: accumulates the time spent.

    Raises:
        BackboneError: an activation is NaN or infinite; the message names the image.
        ShareDone: on the other ranks, in place of the first part.
    """
    with (
        track(label, len(refs), "images") as progress,
        closing(
            ChunkedEncoding(
                backbone,
                refs,
                prepare,
                loader,
                chunk_images=chunk_images,
                clock=clock,
                progress=progress,
            )
        ) as encoding,
    ):
        yield from shared_parts(
            folder,
            fingerprint,
            encoding.chunks,
            lambda chunk: reduce(refs[chunk.start : chunk.stop], encoding.batches(chunk)),
            on_reuse=lambda chunk: progress.skip(len(chunk)),
            on_others=lambda chunk: progress.advance(len(chunk)),
        )


def plain_preparation(backbone: Backbone, *, stretch: bool = False) -> Callable[[Image], Tensor]:
    """Return what makes of an RGB image the square of bytes [3, H, W] that ``backbone`` takes."""
    return partial(
        to_square,
        side=backbone.site.resolution,
        crop_share=backbone.preprocessing.crop_share,
        stretch=stretch,
    )


def _require_finite(tokens: BlockTokens, image_ids: list[str], backbone: Backbone) -> None:
    """A NaN would pass through every sum and mean unseen."""
    if bool(tokens.patch.isfinite().all()):
        return
    per_image = tokens.patch.isfinite().flatten(1).all(1).reshape(len(image_ids), -1).all(1)
    wrong = image_ids[int((~per_image).nonzero()[0])]
    raise BackboneError(
        f"{wrong}: an activation of {backbone.site.model}, block {backbone.site.layer}, is NaN or "
        "infinite; check the weights"
    )
