"""Stage «evaluate»: reconstruction, activity and exemplars, in one pass over plain images."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vitscope.images.sources import ImageRef
from vitscope.removal.contribution import active_entries
from vitscope.removal.statistics import ContributionSums
from vitscope.sae.quality import TOKEN_GROUPS, FeatureActivity, ReconstructionSums
from vitscope.scope.exemplars import NO_IMAGE, TopImages, codes_that_fit
from vitscope.stages.chunked import Batches, pass_over
from vitscope.stages.context import Context, StageOutcome
from vitscope.stages.outliers import read_tau
from vitscope.store.atomic import write_json
from vitscope.store.stage import StageOutput
from vitscope.store.tables import write_table

ACTIVITY_SCHEMA = 2
"""Counts up when the table of activity gets other columns: the stage is then done anew."""

FIGURES = ("fvu", "fvu_own_mean", "fvu_uncentred", "l0", "cosine")
"""Of one group of tokens."""

RECONSTRUCTION_SCHEMA = 2
"""The same for the tables of reconstruction."""


def run_evaluate(context: Context) -> StageOutcome:
    """Write ``exemplars.parquet``, the activity of every feature, and Table 6's figures."""
    study, run = context.study, context.run
    k = study.scope.top_images

    def body(fingerprint: str) -> StageOutput:
        refs = context.eval_refs()
        tau = read_tau(context)
        reduce = partial(_evaluate_chunk, context, tau, k)
        done = pass_over(context, "evaluate", fingerprint, refs, context.plain_view, reduce)
        top, sums, activity, contributions = _merge(context, done.parts, k)
        source = {"stage": "evaluate", "fingerprint": fingerprint}
        _write_exemplars(context, top, refs, source)
        _write_activity(context, activity, contributions, source)
        metrics = sums.metrics()
        write_json(run.table("reconstruction"), asdict(metrics) | {"tau": tau})
        _write_left_out(context, done.parts, source)
        fired = activity.count["normal"] + activity.count["outlier"] > 0
        summary = {
            "fvu_all": metrics.all.fvu,
            "fvu_outlier": metrics.outlier.fvu,
            "l0_all": metrics.all.l0,
            "l0_outlier": metrics.outlier.l0,
            "cosine_all": metrics.all.cosine,
            "cosine_outlier": metrics.outlier.cosine,
            "silent_share": float((~fired).double().mean()),
            "forward_views": len(refs),
        }
        left_out = run.columns("reconstruction_left_out")
        files = [run.exemplars, run.columns("activity"), run.table("reconstruction"), left_out]
        return StageOutput(files, summary | done.rates)

    return context.finish(
        "evaluate",
        settings={
            "top_images": k,
            "activity": ACTIVITY_SCHEMA,
            "reconstruction": RECONSTRUCTION_SCHEMA,
        },
        after=("images", "train", "outliers"),
        extra_inputs={"backbone": context.backbone_digest},
        body=body,
        shared=True,
    )


def _evaluate_chunk(
    context: Context, tau: float, k: int, chunk: Sequence[ImageRef], batches: Batches
) -> dict[str, Tensor]:
    sae, start = context.sae, _position(context, chunk[0])
    top = TopImages.empty(sae.n_features, k)
    sums, activity = ReconstructionSums(sae.width), FeatureActivity(sae.n_features)
    contributions = ContributionSums(sae.n_features)
    for batch in batches:
        patch = batch.tokens.patch.float()
        for some in codes_that_fit(len(patch), patch.shape[1], sae.n_features):
            rows = patch[some].reshape(-1, patch.shape[-1])
            codes = sae.encode(rows)
            outlier = rows.norm(dim=-1) > tau
            sums.update(rows, sae.decode(codes, like=rows), codes, outlier)
            activity.update(codes, outlier)
            contributions.update(active_entries(codes))
            strongest = codes.reshape(-1, patch.shape[1], sae.n_features).amax(1)
            top.update(strongest, torch.tensor(batch.indices[some]) + start)
    exemplars = {"top.entries": top.entries.cpu()}
    return exemplars | sums.to_tensors() | activity.to_tensors() | contributions.to_tensors()


def _position(context: Context, ref: ImageRef) -> int:
    return context.eval_positions[ref.id]


def _merge(
    context: Context, parts: list[dict[str, Tensor]], k: int
) -> tuple[TopImages, ReconstructionSums, FeatureActivity, ContributionSums]:
    sae = context.sae
    top = TopImages.empty(sae.n_features, k)
    sums, activity = ReconstructionSums(sae.width), FeatureActivity(sae.n_features)
    contributions = ContributionSums(sae.n_features)
    for part in parts:
        top.merge(TopImages(part["top.entries"]))
        sums.merge(ReconstructionSums.from_tensors(part))
        activity.merge(FeatureActivity.from_tensors(part))
        contributions.merge(ContributionSums.from_tensors(part))
    return top, sums, activity, contributions


def _write_left_out(
    context: Context, parts: list[dict[str, Tensor]], source: dict[str, str]
) -> None:
    """Write the figures without each chunk of images in turn: a jackknife's, for their errors."""
    sums = [ReconstructionSums.from_tensors(part) for part in parts]
    rows: list[dict[str, float]] = []
    for left_out in range(len(sums)):
        rest = ReconstructionSums(context.sae.width)
        for one in sums[:left_out] + sums[left_out + 1 :]:
            rest.merge(one)
        found = rest.metrics()
        rows.append(
            {
                f"{n}.{group}": getattr(getattr(found, group), n)
                for group in TOKEN_GROUPS
                for n in FIGURES
            }
        )
    columns = {name: np.asarray([row[name] for row in rows]) for name in rows[0]}
    write_table(context.run.columns("reconstruction_left_out"), columns, source)


def _write_exemplars(
    context: Context, top: TopImages, refs: Sequence[ImageRef], source: dict[str, str]
) -> None:
    feature, rank = (top.image != NO_IMAGE).nonzero(as_tuple=True)
    image = top.image[feature, rank].numpy()
    columns = {
        "feature": feature.numpy(),
        "rank": rank.numpy(),
        "image": image,
        "image_id": [refs[index].id for index in image],
        "activation": top.activation[feature, rank].numpy(),
    }
    write_table(context.run.exemplars, columns, source)


def _write_activity(
    context: Context,
    activity: FeatureActivity,
    contributions: ContributionSums,
    source: dict[str, str],
) -> None:
    columns = {
        "density": activity.density(),
        "mean_activation": activity.mean_active(),
        "max_activation": activity.maximum,
        "mean_on_outlier": activity.mean_on("outlier"),
        "mean_on_normal": activity.mean_on("normal"),
        "energy": contributions.energy(context.sae),
        "rate": contributions.rate(),
    }
    arrays = {name: values.double().numpy() for name, values in columns.items()}
    write_table(context.run.columns("activity"), arrays, source)
