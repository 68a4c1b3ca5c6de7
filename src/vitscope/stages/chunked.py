"""A pass over the evaluation images in chunks: forward once, keep each chunk's result on disk."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

from PIL.Image import Image
from torch import Tensor

from vitscope.images.sources import ImageRef
from vitscope.stages.context import Context
from vitscope.tokens.encoding import EncodedBatch, LoaderOptions, PassClock, encode_in_parts

CHUNK_IMAGES = 128
"""Images between two saved parts: what a kill may cost."""

Batches = Iterator[EncodedBatch]
Reduce = Callable[[Sequence[ImageRef], Batches], dict[str, Tensor]]


@dataclass(frozen=True)
class ChunkedPass:
    """The parts of a pass, in image order, and where its time went."""

    parts: list[dict[str, Tensor]]
    rates: dict[str, float]


def pass_over(
    context: Context,
    stage: str,
    fingerprint: str,
    refs: Sequence[ImageRef],
    prepare: Callable[[Image], Tensor],
    reduce: Reduce,
) -> ChunkedPass:
    """Encode ``refs`` chunk by chunk and hand each chunk's batches to ``reduce``.

    ``reduce`` is called with the chunk's references; a batch's ``indices`` point into them.
    """
    clock, reading = PassClock(), context.reading
    parts = list(
        stream_parts(
            context, stage, fingerprint, refs, prepare, reduce, reading=reading, clock=clock
        )
    )
    return ChunkedPass(parts, clock.rates(reading.workers))


def stream_parts(
    context: Context,
    stage: str,
    fingerprint: str,
    refs: Sequence[ImageRef],
    prepare: Callable[[Image], Tensor],
    reduce: Reduce,
    *,
    reading: LoaderOptions,
    clock: PassClock,
) -> Generator[dict[str, Tensor]]:
    """Yield what ``reduce`` makes of each chunk of ``refs``, in order, through the disk.

    Args:
        context: the study in progress.
        stage: whose parts they are.
        fingerprint: of the stage; parts of another are computed anew.
        refs: the images.
        prepare: image -> bytes of its views.
        reduce: called with a chunk's references and its batches, whose ``indices`` point into them.
        reading: how the images are read.
        clock: accumulates where the time goes.
    """
    return encode_in_parts(
        context.backbone,
        refs,
        prepare,
        reading,
        reduce,
        label=stage,
        folder=context.run.parts(stage),
        fingerprint=fingerprint,
        chunk_images=CHUNK_IMAGES,
        clock=clock,
    )
