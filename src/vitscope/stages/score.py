"""Stage «score»: Earth Mover's Distance of every exemplar pair."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from vitscope.images.loading import worker_count
from vitscope.images.sources import ImageRef
from vitscope.scope.exemplars import Wanted, sampled_features, wanted_by_image
from vitscope.scope.pairs import PairMaps, PairScores, ordered_pairs, score_stream
from vitscope.scope.views import Overlap
from vitscope.stages.backbone import BackboneStage
from vitscope.stages.evaluate import EvaluateStage
from vitscope.stages.passes import Batches, pass_over
from vitscope.stages.stage import Job, Stage
from vitscope.store.records import At
from vitscope.store.tables import Table

PAIR_COLUMNS = tuple(f.name for f in fields(PairScores))


@dataclass(frozen=True)
class ScoreResult:
    """Distances between activation maps in two views.

    Attributes:
        n_features: scored.
        n_missed: pairs that are active in exactly one of the views.
        n_images: encoded, in two views each.
        diameter: D_grid of the overlap, in patches.
        pairs: (feature, exemplar): EMD, nulls, active cells in both views.
    """

    n_features: int
    n_missed: int
    n_images: int
    diameter: float
    pairs: Annotated[Table, At("pairs.parquet")]

    @property
    def scores(self) -> PairScores:
        """The pairs as records of arrays."""
        return PairScores(**{name: self.pairs[name] for name in PAIR_COLUMNS})


class ScoreStage(Stage[ScoreResult]):
    """Encodes two views of every exemplar image; nothing is ever encoded once a feature."""

    name = "score"
    after = ("backbone", "images", "train", "evaluate")
    shared = True
    version = 2
    Result = ScoreResult

    def settings(self, job: Job) -> Mapping[str, Any]:
        """Return which views and nulls are compared."""
        names = {"shift", "null_draws", "cross_null", "sample_features", "resize"}
        return job.study.scope.model_dump(include=names)

    def run(self, job: Job) -> ScoreResult:
        """Score every pair of an exemplar image's views."""
        study = job.study
        exemplars = job.result(EvaluateStage).exemplars
        chosen = sampled_features(exemplars["feature"], study.scope.sample_features, study.seed)
        rows = np.isin(exemplars["feature"], chosen)
        wanted = wanted_by_image(*(exemplars[n][rows] for n in ("feature", "rank", "image")))
        overlap = Overlap(job.result(BackboneStage).site.grid, study.scope.shift)
        refs = [job.eval_refs[image] for image in wanted]
        reduce = partial(_score_chunk, job, wanted, overlap)
        parts = list(pass_over(job, refs, job.models.shifted_views, reduce))
        pairs = _joined(job, parts, overlap)
        ids = [job.eval_refs[i].id for i in pairs.image]
        return ScoreResult(
            n_features=len(chosen),
            n_missed=int(pairs.missed.sum()),
            n_images=len(refs),
            diameter=overlap.diameter,
            pairs=Table({name: getattr(pairs, name) for name in PAIR_COLUMNS} | {"image_id": ids}),
        )

    def headline(self, result: ScoreResult) -> list[tuple[str, str]]:
        """Return how many pairs there are."""
        counted = f"{result.pairs.n_rows:,} of {result.n_features:,} features"
        return [("pairs", f"{counted} on {result.n_images:,} images, {result.n_missed:,} missed")]


def _score_chunk(
    job: Job,
    wanted: Mapping[int, Wanted],
    overlap: Overlap,
    chunk: Sequence[ImageRef],
    batches: Batches,
) -> dict[str, Tensor]:
    def encoded() -> Iterator[tuple[Tensor, list[int], list[str]]]:
        for batch in batches:
            ids = [chunk[index].id for index in batch.indices]
            yield batch.tokens.patch.float(), [job.eval_positions[name] for name in ids], ids

    pairs, maps = score_stream(
        job.models.sae,
        encoded(),
        wanted,
        overlap,
        null_draws=job.study.scope.null_draws,
        seed=job.study.seed,
        workers=worker_count(job.study.images.workers),
    )
    columns = {name: torch.from_numpy(getattr(pairs, name)) for name in PAIR_COLUMNS}
    return columns | (maps.to_tensors() if job.study.scope.cross_null else {})


def _joined(job: Job, parts: list[dict[str, Tensor]], overlap: Overlap) -> PairScores:
    """Order the pairs of all chunks, and compare across images."""
    chunks = [PairScores(**{name: part[name].numpy() for name in PAIR_COLUMNS}) for part in parts]
    pairs, maps = PairScores.concatenated([PairScores.empty(), *chunks]), None
    if chunks and job.study.scope.cross_null:
        maps = PairMaps.joined([PairMaps.from_tensors(part, overlap.side) for part in parts])
    return ordered_pairs(pairs, maps, workers=worker_count(job.study.images.workers))
