"""Stage «instability»: how far attention moves between two views (Tables 7 and 9)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from vitscope.artifacts.atomic import write_json
from vitscope.artifacts.stage import StageOutput
from vitscope.artifacts.tables import write_table
from vitscope.images.parallel import worker_count
from vitscope.images.sources import ImageRef
from vitscope.images.subset import pick_images
from vitscope.scope.instability import (
    READINGS,
    GroupInstability,
    ImageInstability,
    ReadingInstability,
    image_instability,
    summarise_group,
)
from vitscope.scope.views import Overlap
from vitscope.stages.chunked import Batches, pass_over
from vitscope.stages.context import Context, StageOutcome
from vitscope.stages.outliers import read_tau

GROUPS = ("out", "non")


def run_instability(context: Context) -> StageOutcome:
    """Write ``outliers.parquet``, one row an image, and the means over images."""
    study, run = context.study, context.run
    settings = study.outliers

    def body(fingerprint: str) -> StageOutput:
        refs = pick_images(context.eval_refs(), settings.images, study.seed)
        site = context.backbone.site
        overlap = Overlap(site.grid, study.scope.shift)
        reduce = partial(_compare_chunk, context, overlap, read_tau(context))
        done = pass_over(context, "instability", fingerprint, refs, context.shifted_views, reduce)
        rows = torch.cat([part["rows"] for part in done.parts]).numpy()
        columns = dict(zip(column_names(), rows.T, strict=True))
        write_table(
            run.outliers,
            {"image_id": [ref.id for ref in refs], **columns},
            {"stage": "instability", "fingerprint": fingerprint, "diameter": overlap.diameter},
        )
        summary = {row.reading: asdict(row) for row in summarise_readings(columns)}
        table = {"readings": summary, "diameter": overlap.diameter, "n_images": len(refs)}
        write_json(run.table("instability"), table)
        return StageOutput([run.outliers, run.table("instability")], summary | done.rates)

    return context.finish(
        "instability",
        settings={
            **settings.model_dump(include={"images", "tokens_per_image", "membership"}),
            **study.scope.model_dump(include={"shift", "resize"}),
        },
        after=("images", "outliers"),
        extra_inputs={"backbone": context.backbone_digest},
        body=body,
    )


def column_names() -> list[str]:
    """Return the numeric columns of ``outliers.parquet``, in order."""
    names = ["n_outliers"]
    for reading in READINGS:
        for group in GROUPS:
            names += [f"{reading}_{group}", f"{reading}_{group}_n", f"{reading}_{group}_missed"]
    return names


def summarise_readings(columns: Mapping[str, NDArray[Any]]) -> list[ReadingInstability]:
    """Average the columns of ``outliers.parquet`` over images, reading by reading."""

    def group(reading: str, name: str) -> GroupInstability:
        stem = f"{reading}_{name}"
        return summarise_group(columns[stem], columns[f"{stem}_n"], columns[f"{stem}_missed"])

    return [
        ReadingInstability(reading, group(reading, "out"), group(reading, "non"))
        for reading in READINGS
    ]


def _compare_chunk(
    context: Context, overlap: Overlap, tau: float, chunk: Sequence[ImageRef], batches: Batches
) -> dict[str, Tensor]:
    settings = context.study.outliers
    rows: list[list[float]] = []
    for batch in batches:
        masks = (batch.tokens.patch.norm(dim=-1) > tau).cpu().numpy()
        for row, index in enumerate(batch.indices):
            pair = slice(2 * row, 2 * row + 2)
            # one image at a time: a batch of attention maps would not fit at large grids
            with torch.inference_mode():
                attention = context.backbone.attention(batch.pixels[pair])
            over_patches = attention.patch_rows()[..., attention.n_prefix :]
            one, other = over_patches.double().cpu().numpy()
            found = image_instability(
                (one, other),
                (masks[2 * row], masks[2 * row + 1]),
                overlap,
                membership=settings.membership,
                tokens_per_image=settings.tokens_per_image,
                key=(context.study.seed, chunk[index].id),
                workers=worker_count(context.study.images.workers),
            )
            rows.append(_row(found))
    return {"rows": torch.tensor(rows, dtype=torch.float64)}


def _row(found: ImageInstability) -> list[float]:
    values = [float(found.n_outliers)]
    for reading in READINGS:
        for group in found.by_reading[reading]:
            values += [group.mean, float(group.n), float(group.n_missed)]
    return values
