"""Stage «instability»: how far attention moves, outliers against others."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from vitscope.backbones.backbone import Site
from vitscope.images.loading import worker_count
from vitscope.images.sources import ImageRef, pick_images
from vitscope.scope.instability import (
    ATTENTION_READINGS,
    COMPARED_GROUPS,
    MEMBERSHIPS,
    ComparedTokens,
    ImageInstability,
    image_instability,
    read_maps,
)
from vitscope.scope.instability_summary import InstabilitySums, ReadingInstability
from vitscope.scope.settings import parse_shifts, parse_tokens
from vitscope.scope.views import Overlap, compared_overlaps, shifted_views
from vitscope.stages.backbone import BackboneStage
from vitscope.stages.numbers import with_ends
from vitscope.stages.outliers import OutliersStage
from vitscope.stages.passes import Batches, pass_over
from vitscope.stages.stage import Job, Stage
from vitscope.store.records import At
from vitscope.store.tables import Table, table_stream
from vitscope.study import Study
from vitscope.tokens.encoding import EncodedBatch

IMAGES_PER_CALL = 8
"""Images whose attention is read at a time; one where every token is compared."""

PARTS = ("emd", "n_maps", "n_missed", "n_outliers")
"""What a chunk keeps: [n, S, 3, 3, 2] (shift, reading, membership, group); the last [n, S, 3]."""


@dataclass(frozen=True)
class InstabilityResult:
    """How far attention moves between two views (Tables 7 and 9).

    Attributes:
        rows: every shift, membership and reading of attention.
        shift: the study's own.
        membership: where a token's norm must exceed τ, by its settings.
        diameter: D_grid of its own shift, in patches.
        n_images: whose views were compared.
        images: (image, shift, reading, membership, tokens): mean EMD, maps, missed.
        reading: of attention, which is shown first: a run takes it from its study.
    """

    rows: tuple[ReadingInstability, ...]
    shift: int
    membership: str
    diameter: float
    n_images: int
    images: Annotated[Table, At("outliers.parquet")]
    reading: str = ATTENTION_READINGS[0]

    @property
    def shown(self) -> tuple[ReadingInstability, ...]:
        """Rows of the study's membership: by shift, the reading shown first leading."""
        rows = [row for row in self.rows if row.membership == self.membership]
        return tuple(sorted(rows, key=lambda row: (row.shift, row.reading != self.reading)))

    @property
    def own(self) -> tuple[ReadingInstability, ...]:
        """Of these, the study's own shift: a row a reading."""
        return tuple(row for row in self.shown if row.shift == self.shift)

    @property
    def chosen(self) -> ReadingInstability:
        """The row at the study's own shift of the reading that is shown first."""
        return self.own[0]

    @property
    def shifts(self) -> tuple[int, ...]:
        """Compared, ascending."""
        return tuple(sorted({row.shift for row in self.rows}))


class InstabilityStage(Stage[InstabilityResult]):
    """Compares the attention of two views of each image, at one shift or several in one pass."""

    name = "instability"
    after = ("backbone", "images", "outliers")
    shared = True
    Result = InstabilityResult

    def settings(self, job: Job) -> Mapping[str, Any]:
        """Return which images, tokens and shifts are compared."""
        study = job.study
        names = {"images", "tokens_per_image", "membership"}
        return {
            **study.outliers.model_dump(include=names),
            **study.scope.model_dump(include={"shift", "resize"}),
            "shifts": [overlap.shift for overlap in _overlaps(job)],
        }

    def run(self, job: Job) -> InstabilityResult:
        """Write the long table image by image; the means over images with their intervals."""
        study, overlaps = job.study, _overlaps(job)
        refs = pick_images(job.eval_refs, study.outliers.images, study.seed)
        n_images = max(job.options.batch_size // len(overlaps), 1)
        site = job.result(BackboneStage).site
        parts = pass_over(
            job,
            refs,
            partial(_views, site, overlaps, study.stretch),
            partial(_compare_chunk, job, overlaps, job.result(OutliersStage).tau),
            options=replace(job.options, batch_size=n_images),
        )
        with closing(parts):
            begun = chain([next(parts)], parts)  # ranks that only help end here, before any file
            told = {"stage": job.stage, "fingerprint": job.fingerprint}
            rows = write_and_sum(job.run.outliers, refs, begun, overlaps, told, seed=study.seed)
        own = next(overlap for overlap in overlaps if overlap.shift == study.scope.shift)
        return InstabilityResult(
            rows=rows,
            shift=study.scope.shift,
            membership=study.outliers.membership,
            diameter=own.diameter,
            n_images=len(refs),
            images=Table.at(job.run.outliers),
        )

    def headline(self, result: InstabilityResult) -> list[tuple[str, str]]:
        """Return outlier against other tokens, a line a shift and reading."""
        several = len(result.shifts) > 1
        lines: list[tuple[str, str]] = []
        for reading in ATTENTION_READINGS:
            for row in (one for one in result.shown if one.reading == reading):
                out, other = (with_ends(g.mean, g.low, g.high) for g in (row.outlier, row.other))
                label = f"D̄ outlier / other, {reading}" + (f", s = {row.shift}" if several else "")
                lines.append((label, f"{out} / {other}" + ("" if several else " patches")))
        return lines


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


def _overlaps(job: Job) -> tuple[Overlap, ...]:
    grid = job.result(BackboneStage).site.grid
    return compared_overlaps(grid, job.study.scope.shift, job.study.instability)


def _views(site: Site, overlaps: Sequence[Overlap], stretch: bool, image: Image) -> Tensor:
    """Cut both views of an image at every shift: bytes [2·S, 3, p·n, p·n]."""
    pairs = (shifted_views(image, site, overlap.shift, stretch=stretch) for overlap in overlaps)
    return torch.cat(list(pairs))


def _compare_chunk(
    job: Job,
    overlaps: Sequence[Overlap],
    tau: float,
    chunk: Sequence[ImageRef],
    batches: Batches,
) -> dict[str, Tensor]:
    found: list[list[ImageInstability]] = []
    for batch in batches:
        refs = [chunk[index] for index in batch.indices]
        by_shift = [
            list(_compare_batch(job, overlap, tau, refs, _of_shift(batch, s, len(overlaps))))
            for s, overlap in enumerate(overlaps)
        ]
        found += [list(of_image) for of_image in zip(*by_shift, strict=True)]
    return {
        name: torch.from_numpy(np.stack([[getattr(i, name) for i in row] for row in found]))
        for name in PARTS
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
    job: Job, overlap: Overlap, tau: float, refs: Sequence[ImageRef], batch: _ShiftedBatch
) -> Iterator[ImageInstability]:
    """Yield what each image shows at one shift."""
    study, n_others = job.study, job.study.outliers.tokens_per_image
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
            read_maps(job.models.backbone.attention(pixels[:, view]), cells, tokens)
            for view, cells in enumerate((overlap.first, overlap.second))
        )
        workers = worker_count(study.images.workers)
        for views, of_image in zip(zip(first, second, strict=True), chosen, strict=True):
            yield image_instability(views, of_image, overlap, workers=workers)


def write_and_sum(
    path: Path,
    refs: Sequence[ImageRef],
    parts: Iterable[Mapping[str, Tensor]],
    overlaps: Sequence[Overlap],
    told: Mapping[str, Any],
    *,
    seed: int,
) -> tuple[ReadingInstability, ...]:
    """Write the table of images part by part and sum it up; one part is in memory at a time.

    Args:
        path: of the table.
        refs: the images, in the order of the parts.
        parts: ``emd``, ``n_maps`` and ``n_missed`` [n, S, 3, 3, 2], ``n_outliers`` [n, S, 3].
        overlaps: one per shift.
        told: what the table was made from.
        seed: of the bootstrap.
    """
    sums, start = InstabilitySums(len(overlaps), seed), 0
    diameters = {str(overlap.shift): overlap.diameter for overlap in overlaps}
    with table_stream(path, {**told, "diameters": diameters}) as append:
        for part in parts:
            arrays = {name: values.numpy() for name, values in part.items()}
            ids = [ref.id for ref in refs[start : start + len(arrays["emd"])]]
            start += len(ids)
            append(_columns(ids, arrays, overlaps))
            sums.add(ids, arrays["emd"], arrays["n_maps"], arrays["n_missed"])
    return sums.summarise(overlaps)


def _columns(
    ids: Sequence[str], arrays: Mapping[str, NDArray[Any]], overlaps: Sequence[Overlap]
) -> dict[str, NDArray[Any] | list[str]]:
    """Return one row per image, shift, reading, membership and group of tokens."""
    shape = arrays["emd"].shape
    n_outliers = arrays["n_outliers"][:, :, None, :, None]

    def spread(values: Sequence[Any], axis: int) -> NDArray[Any]:
        along = np.asarray(values).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        return np.broadcast_to(along, shape).ravel()

    return {
        "image_id": np.repeat(np.asarray(ids, object), int(np.prod(shape[1:]))).tolist(),
        "shift": spread([overlap.shift for overlap in overlaps], 1),
        "reading": spread(ATTENTION_READINGS, 2).tolist(),
        "membership": spread(MEMBERSHIPS, 3).tolist(),
        "tokens": spread(COMPARED_GROUPS, 4).tolist(),
        "emd": arrays["emd"].ravel(),
        "n_maps": arrays["n_maps"].ravel(),
        "n_missed": arrays["n_missed"].ravel(),
        "n_outliers": np.broadcast_to(n_outliers, shape).ravel(),
    }
