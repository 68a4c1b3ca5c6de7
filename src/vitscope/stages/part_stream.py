"""A pass over images whose parts are handed on one by one: no more than one is in memory."""

from collections.abc import Callable, Generator, Sequence

from PIL.Image import Image
from torch import Tensor

from vitscope.activations.chunks import ChunkedEncoding
from vitscope.activations.forward import PassClock, ReadingSettings
from vitscope.artifacts.parts import resumable_map
from vitscope.images.sources import ImageRef
from vitscope.progress import track
from vitscope.stages import chunked
from vitscope.stages.chunked import Reduce
from vitscope.stages.context import Context


def stream_parts(
    context: Context,
    stage: str,
    fingerprint: str,
    refs: Sequence[ImageRef],
    prepare: Callable[[Image], Tensor],
    reduce: Reduce,
    *,
    reading: ReadingSettings,
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
    with (
        track(stage, len(refs), "images") as progress,
        ChunkedEncoding(
            context.backbone,
            refs,
            prepare,
            reading,
            chunk_images=chunked.CHUNK_IMAGES,
            clock=clock,
            progress=progress,
        ) as encoding,
    ):
        yield from resumable_map(
            context.run.parts(stage),
            fingerprint,
            encoding.chunks,
            lambda chunk: reduce(refs[chunk.start : chunk.stop], encoding.batches(chunk)),
            on_reuse=lambda chunk: progress.skip(len(chunk)),
        )
