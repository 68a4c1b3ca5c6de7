"""Stage «instability»: how far attention moves between two views (Tables 7 and 9)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from vitscope.backbones.backbone import Site
from vitscope.images.loading import worker_count
from vitscope.images.sources import ImageRef, pick_images
from vitscope.scope.instability import ComparedTokens, ImageInstability, image_instability
from vitscope.scope.instability_maps import read_maps
from vitscope.scope.instability_settings import compared_overlaps, parse_shifts, parse_tokens
from vitscope.scope.instability_summary import ReadingInstability
from vitscope.scope.views import Overlap, shifted_views
from vitscope.stages.chunked import Batches, stream_parts
from vitscope.stages.context import Context, StageOutcome
from vitscope.stages.instability_table import write_parts
from vitscope.stages.outliers import read_tau
from vitscope.store.atomic import write_json
from vitscope.store.stage import StageOutput
from vitscope.study import Study
from vitscope.tokens.encoding import EncodedBatch, PassClock

IMAGES_PER_CALL = 8
"""Images whose attention is read at a time; one where every token is compared."""


def run_instability(context: Context) -> StageOutcome:
    """Write ``outliers.parquet``, long, and the means over images with their intervals."""
    study, run = context.study, context.run
    settings, site = study.outliers, context.backbone.site
    overlaps = compared_overlaps(site.grid, study.scope.shift, study.instability)

    def body(fingerprint: str) -> StageOutput:
        refs = pick_images(context.eval_refs(), settings.images, study.seed)
        clock = PassClock()
        n_images = max(context.reading.batch_size // len(overlaps), 1)
        parts = stream_parts(
            context,
            "instability",
            fingerprint,
            refs,
            partial(_views, site, overlaps, context.stretch),
            partial(_compare_chunk, context, overlaps, read_tau(context)),
            reading=replace(context.reading, batch_size=n_images),
            clock=clock,
        )
        source = {"stage": "instability", "fingerprint": fingerprint}
        with closing(parts):
            begun = chain([next(parts)], parts)  # ranks that only help end here, before any file
            rows = write_parts(run.outliers, refs, begun, overlaps, source, seed=study.seed)
        table = _describe(study, rows, len(refs))
        write_json(run.table("instability"), table)
        shown = table["readings"] | {"shifts": [row for row in table["rows"] if _shown(row, study)]}
        files = [run.outliers, run.table("instability")]
        return StageOutput(files, shown | clock.rates(context.reading.workers))

    return context.finish(
        "instability",
        settings={
            **settings.model_dump(include={"images", "tokens_per_image", "membership"}),
            **study.scope.model_dump(include={"shift", "resize"}),
            "shifts": [overlap.shift for overlap in overlaps],
        },
        after=("images", "outliers"),
        extra_inputs={"backbone": context.backbone_digest},
        body=body,
        shared=True,
    )


def with_options(study: Study, shifts: str | None, tokens: str | None) -> Study:
    """Return ``study`` with what was typed after ``--shifts`` and ``--tokens``.

    Raises:
        ConfigError: they cannot be read.
    """
    instability, outliers = study.instability, study.outliers
    if shifts is not None:
        instability = instability.model_copy(update={"shifts": parse_shifts(shifts)})
    if tokens is not None:
        outliers = outliers.model_copy(update={"tokens_per_image": parse_tokens(tokens)})
    return study.model_copy(update={"instability": instability, "outliers": outliers})


def _views(site: Site, overlaps: Sequence[Overlap], stretch: bool, image: Image) -> Tensor:
    """Cut both views of an image at every shift: bytes [2·S, 3, p·n, p·n]."""
    pairs = (shifted_views(image, site, overlap.shift, stretch=stretch) for overlap in overlaps)
    return torch.cat(list(pairs))


def _compare_chunk(
    context: Context,
    overlaps: Sequence[Overlap],
    tau: float,
    chunk: Sequence[ImageRef],
    batches: Batches,
) -> dict[str, Tensor]:
    found: list[list[ImageInstability]] = []
    for batch in batches:
        refs = [chunk[index] for index in batch.indices]
        by_shift = [
            list(_compare_batch(context, overlap, tau, refs, _of_shift(batch, s, len(overlaps))))
            for s, overlap in enumerate(overlaps)
        ]
        found += [list(of_image) for of_image in zip(*by_shift, strict=True)]
    names = ("emd", "n_maps", "n_missed", "n_outliers")
    return {
        name: torch.from_numpy(np.stack([[getattr(i, name) for i in row] for row in found]))
        for name in names
    }


@dataclass(frozen=True)
class _ShiftedBatch:
    """A batch at one shift: bytes [B, 2, 3, H, W], and norms of patch tokens [B, 2, P]."""

    pixels: Tensor
    norms: Tensor


def _of_shift(batch: EncodedBatch, s: int, n_shifts: int) -> _ShiftedBatch:
    shape = (len(batch.indices), n_shifts, 2)
    norms = batch.tokens.patch.norm(dim=-1)
    return _ShiftedBatch(batch.pixels.unflatten(0, shape)[:, s], norms.unflatten(0, shape)[:, s])


def _compare_batch(
    context: Context, overlap: Overlap, tau: float, refs: Sequence[ImageRef], batch: _ShiftedBatch
) -> Iterator[ImageInstability]:
    """Yield what each image shows at one shift."""
    study, n_others = context.study, context.study.outliers.tokens_per_image
    masks = (batch.norms > tau).cpu().numpy()
    step = IMAGES_PER_CALL if n_others else 1
    for start in range(0, len(refs), step):
        rows = range(start, min(start + step, len(refs)))
        chosen = [
            ComparedTokens.choose(
                (masks[row, 0], masks[row, 1]), overlap, n_others, (study.seed, refs[row].id)
            )
            for row in rows
        ]
        tokens = [one.tokens for one in chosen]
        pixels = batch.pixels[rows.start : rows.stop]
        # the overlap lies at the same place in all first views, and in all second ones
        first, second = (
            read_maps(context.backbone.attention(pixels[:, view]), cells, tokens)
            for view, cells in enumerate((overlap.first, overlap.second))
        )
        workers = worker_count(study.images.workers)
        for views, of_image in zip(zip(first, second, strict=True), chosen, strict=True):
            yield image_instability(views, of_image, overlap, workers=workers)


def _describe(study: Study, rows: Sequence[ReadingInstability], n_images: int) -> dict[str, Any]:
    """Return the table as JSON; ``readings`` are those of the study's own shift and membership."""
    own = [
        row
        for row in rows
        if row.shift == study.scope.shift and row.membership == study.outliers.membership
    ]
    return {
        "readings": {row.reading: asdict(row) for row in own},
        "diameter": own[0].diameter,
        "n_images": n_images,
        "rows": [asdict(row) for row in rows],
    }


def _shown(row: Mapping[str, Any], study: Study) -> bool:
    return row["membership"] == study.outliers.membership
