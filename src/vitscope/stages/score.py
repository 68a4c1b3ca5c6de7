"""Stage «score»: EMD of every exemplar pair under Shifted Context Crop."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vitscope.images.loading import worker_count
from vitscope.images.sources import ImageRef
from vitscope.scope.exemplars import Wanted, sampled_features, wanted_by_image
from vitscope.scope.pairs import PairMaps, PairScores, ordered_pairs, score_stream
from vitscope.scope.views import Overlap
from vitscope.stages.chunked import Batches, pass_over
from vitscope.stages.context import Context, StageOutcome
from vitscope.store.stage import StageOutput
from vitscope.store.tables import read_table, write_table


def run_score(context: Context) -> StageOutcome:
    """Encode two views of every exemplar image and write ``pairs.parquet``."""
    study, run = context.study, context.run

    def body(fingerprint: str) -> StageOutput:
        exemplars = read_table(run.exemplars)
        chosen = sampled_features(exemplars["feature"], study.scope.sample_features, study.seed)
        rows = np.isin(exemplars["feature"], chosen)
        feature, rank, image = (exemplars[name][rows] for name in ("feature", "rank", "image"))
        wanted = wanted_by_image(feature, rank, image)
        every = context.eval_refs()
        site = context.backbone.site
        overlap = Overlap(site.grid, study.scope.shift)
        reduce = partial(_score_chunk, context, wanted, overlap)
        refs = [every[image] for image in wanted]
        done = pass_over(context, "score", fingerprint, refs, context.shifted_views, reduce)
        pairs = _joined(context, done.parts, overlap)
        source = {"stage": "score", "fingerprint": fingerprint, "diameter": overlap.diameter}
        write_pairs(run.pairs, pairs, every, source)
        summary = {
            "features": len(chosen),
            "pairs": len(pairs.feature),
            "missed": int(pairs.missed.sum()),
            "images": len(refs),
            "forward_views": 2 * len(refs),
        }
        return StageOutput([run.pairs], summary | done.rates)

    return context.finish(
        "score",
        settings=study.scope.model_dump(
            include={"shift", "null_draws", "cross_null", "sample_features", "resize"}
        ),
        after=("images", "train", "evaluate"),
        extra_inputs={"backbone": context.backbone_digest},
        body=body,
        shared=True,
    )


def write_pairs(
    path: Path, pairs: PairScores, refs: Sequence[ImageRef], source: Mapping[str, object]
) -> None:
    """Write one row per pair, with the image's id."""
    columns = {f.name: getattr(pairs, f.name) for f in fields(PairScores)}
    write_table(path, columns | {"image_id": [refs[i].id for i in pairs.image]}, source)


def read_pairs(path: Path) -> PairScores:
    """Read back what :func:`write_pairs` wrote."""
    table = read_table(path)
    return PairScores(**{f.name: table[f.name] for f in fields(PairScores)})


def _score_chunk(
    context: Context,
    wanted: Mapping[int, Wanted],
    overlap: Overlap,
    chunk: Sequence[ImageRef],
    batches: Batches,
) -> dict[str, Tensor]:
    def encoded() -> Iterator[tuple[Tensor, list[int], list[str]]]:
        for batch in batches:
            ids = [chunk[index].id for index in batch.indices]
            positions = [context.eval_positions[name] for name in ids]
            yield batch.tokens.patch.float(), positions, ids

    pairs, maps = score_stream(
        context.sae,
        encoded(),
        wanted,
        overlap,
        null_draws=context.study.scope.null_draws,
        seed=context.study.seed,
        workers=worker_count(context.study.images.workers),
    )
    columns = {f.name: torch.from_numpy(getattr(pairs, f.name)) for f in fields(PairScores)}
    return columns | (maps.to_tensors() if context.study.scope.cross_null else {})


def _joined(context: Context, parts: list[dict[str, Tensor]], overlap: Overlap) -> PairScores:
    """Order the pairs of all chunks, and compare across images."""
    chunks = [
        PairScores(**{f.name: part[f.name].numpy() for f in fields(PairScores)}) for part in parts
    ]
    pairs, maps = PairScores.concatenated([PairScores.empty(), *chunks]), None
    if chunks and context.study.scope.cross_null:
        maps = PairMaps.joined([PairMaps.from_tensors(part, overlap.side) for part in parts])
    return ordered_pairs(pairs, maps, workers=worker_count(context.study.images.workers))
