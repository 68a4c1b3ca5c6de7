"""Photographs through a backbone: decode on threads, encode in batches, both clocks kept apart."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import torch
from jaxtyping import UInt8
from PIL.Image import Image
from torch import Tensor

from vitscope.backbones.backbone import Backbone, BlockTokens
from vitscope.errors import BackboneError
from vitscope.images.loading import LoadClock, load_batches
from vitscope.images.parallel import worker_count
from vitscope.images.sources import ImageRef
from vitscope.progress import Tracker


@dataclass(frozen=True)
class ReadingSettings:
    """How images are read for a forward pass.

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
    reading: ReadingSettings,
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
        reading: batch size and decoding threads.
        clock: accumulates the time spent.
        progress: advanced by one per image.
        parts: lengths of the parts of ``refs`` that no batch may straddle; None is one part.

    Raises:
        BackboneError: an activation is NaN or infinite; the message names the image.
    """
    batches = load_batches(
        refs,
        prepare,
        batch_size=reading.batch_size,
        workers=reading.workers,
        max_pixels=reading.max_pixels,
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
