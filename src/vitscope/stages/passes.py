"""A pass over the images of a run in chunks: forward once, keep each chunk's result on disk."""

from collections.abc import Callable, Generator, Iterator, Sequence

from PIL.Image import Image
from torch import Tensor

from vitscope.images.sources import ImageRef
from vitscope.stages.stage import Job
from vitscope.tokens.encoding import EncodedBatch, LoaderOptions, PassClock, encode_in_parts

CHUNK_IMAGES = 128
"""Images between two saved parts: what a kill may cost."""

Batches = Iterator[EncodedBatch]


def pass_over(
    job: Job,
    refs: Sequence[ImageRef],
    prepare: Callable[[Image], Tensor],
    reduce: Callable[[Sequence[ImageRef], Batches], dict[str, Tensor]],
    *,
    options: LoaderOptions | None = None,
) -> Generator[dict[str, Tensor]]:
    """Yield what ``reduce`` makes of each chunk of ``refs``, in order, through the disk.

    The job's rates are filled in as the pass ends.

    Args:
        job: the stage at work, whose backbone encodes.
        refs: the images.
        prepare: image -> bytes of its views.
        reduce: called with a chunk's references and its batches, whose ``indices`` point into them.
        options: how the images are read; the study's by default.
    """
    options, clock = options or job.options, PassClock()
    yield from encode_in_parts(
        job.models.backbone,
        refs,
        prepare,
        options,
        reduce,
        label=job.stage,
        folder=job.run.parts(job.stage),
        fingerprint=job.fingerprint,
        chunk_images=CHUNK_IMAGES,
        clock=clock,
    )
    job.rates.update(clock.rates(options.workers))
