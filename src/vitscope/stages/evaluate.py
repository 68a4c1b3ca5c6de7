"""Stage «evaluate»: reconstruction, feature activity, exemplars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from vitscope.images.sources import ImageRef
from vitscope.sae.quality import (
    TOKEN_GROUPS,
    FeatureActivity,
    GroupMetrics,
    ReconstructionMetrics,
    ReconstructionSums,
)
from vitscope.scope.exemplars import NO_IMAGE, TopImages, codes_that_fit
from vitscope.stages.numbers import short
from vitscope.stages.outliers import OutliersStage
from vitscope.stages.passes import Batches, pass_over
from vitscope.stages.stage import Job, Stage
from vitscope.store.records import At
from vitscope.store.tables import Table

RECONSTRUCTION_FIGURES = ("fvu", "fvu_own_mean", "fvu_uncentred", "l0", "cosine")
"""Of a group of tokens, as :class:`GroupMetrics` names them."""


@dataclass(frozen=True)
class EvaluateResult:
    """What the SAE does on the evaluation images.

    Attributes:
        all: reconstruction of all patch tokens.
        outlier: of those above τ.
        silent_share: share of features that no token makes fire.
        n_images: looked at.
        exemplars: (feature, rank): image, its id, the feature's maximum on it.
        activity: a feature: how often and how strongly it fires, and on which tokens.
        left_out: the figures of reconstruction without one chunk of images: a jackknife's.
    """

    all: GroupMetrics
    outlier: GroupMetrics
    silent_share: float
    n_images: int
    exemplars: Annotated[Table, At("exemplars.parquet")]
    activity: Annotated[Table, At("tables/activity.parquet")]
    left_out: Annotated[Table, At("tables/reconstruction_left_out.parquet")]

    @property
    def metrics(self) -> ReconstructionMetrics:
        """Table 6."""
        return ReconstructionMetrics(self.all, self.outlier)


class EvaluateStage(Stage[EvaluateResult]):
    """One pass over plain images: Table 6, the activity of every feature, and its top images."""

    name = "evaluate"
    after = ("backbone", "images", "train", "outliers")
    shared = True
    Result = EvaluateResult

    def settings(self, job: Job) -> Mapping[str, Any]:
        """Return how many exemplars a feature has."""
        return {"top_images": job.study.scope.top_images}

    def run(self, job: Job) -> EvaluateResult:
        """Encode every evaluation image."""
        refs, k = job.eval_refs, job.study.scope.top_images
        tau = job.result(OutliersStage).tau
        reduce = partial(_evaluate_chunk, job, tau, k)
        parts = list(pass_over(job, refs, job.models.plain_view, reduce))
        top, sums, activity = _merge(job, parts, k)
        metrics = sums.metrics()
        fired = activity.count["other"] + activity.count["outlier"] > 0
        return EvaluateResult(
            all=metrics.all,
            outlier=metrics.outlier,
            silent_share=float((~fired).double().mean()),
            n_images=len(refs),
            exemplars=_exemplars(top, refs),
            activity=_activity(job, activity),
            left_out=_left_out(job, parts),
        )

    def headline(self, result: EvaluateResult) -> list[tuple[str, str]]:
        """Return Table 6."""
        return [
            (f"{label} all / outlier", f"{short(of_all)} / {short(of_outliers)}")
            for label, of_all, of_outliers in (
                ("FVU", result.all.fvu, result.outlier.fvu),
                ("L0", result.all.l0, result.outlier.l0),
                ("cosine", result.all.cosine, result.outlier.cosine),
            )
        ]


def _evaluate_chunk(
    job: Job, tau: float, k: int, chunk: Sequence[ImageRef], batches: Batches
) -> dict[str, Tensor]:
    sae, start = job.models.sae, job.eval_positions[chunk[0].id]
    top = TopImages.empty(sae.n_features, k)
    sums, activity = ReconstructionSums(sae.width), FeatureActivity(sae.n_features)
    for batch in batches:
        patch = batch.tokens.patch.float()
        for some in codes_that_fit(len(patch), patch.shape[1], sae.n_features):
            rows = patch[some].reshape(-1, patch.shape[-1])
            codes = sae.encode(rows)
            outlier = rows.norm(dim=-1) > tau
            sums.update(rows, sae.decode(codes, like=rows), codes, outlier)
            activity.update(codes, outlier)
            strongest = codes.reshape(-1, patch.shape[1], sae.n_features).amax(1)
            top.update(strongest, torch.tensor(batch.indices[some]) + start)
    exemplars = {"top.entries": top.entries.cpu()}
    return exemplars | sums.to_tensors() | activity.to_tensors()


def _merge(
    job: Job, parts: list[dict[str, Tensor]], k: int
) -> tuple[TopImages, ReconstructionSums, FeatureActivity]:
    sae = job.models.sae
    top = TopImages.empty(sae.n_features, k)
    sums, activity = ReconstructionSums(sae.width), FeatureActivity(sae.n_features)
    for part in parts:
        top.merge(TopImages(part["top.entries"]))
        sums.merge(ReconstructionSums.from_tensors(part))
        activity.merge(FeatureActivity.from_tensors(part))
    return top, sums, activity


def _left_out(job: Job, parts: list[dict[str, Tensor]]) -> Table:
    """Return the figures without each chunk of images in turn, for their jackknifed errors."""
    sums = [ReconstructionSums.from_tensors(part) for part in parts]
    rows: list[dict[str, float]] = []
    for left_out in range(len(sums)):
        rest = ReconstructionSums(job.models.sae.width)
        for one in sums[:left_out] + sums[left_out + 1 :]:
            rest.merge(one)
        found = rest.metrics()
        rows.append(
            {
                f"{n}.{group}": getattr(getattr(found, group), n)
                for group in TOKEN_GROUPS
                for n in RECONSTRUCTION_FIGURES
            }
        )
    return Table({name: np.asarray([row[name] for row in rows]) for name in rows[0]})


def _exemplars(top: TopImages, refs: Sequence[ImageRef]) -> Table:
    feature, rank = (top.image != NO_IMAGE).nonzero(as_tuple=True)
    image = top.image[feature, rank].numpy()
    return Table(
        {
            "feature": feature.numpy(),
            "rank": rank.numpy(),
            "image": image,
            "image_id": [refs[index].id for index in image],
            "activation": top.activation[feature, rank].numpy(),
        }
    )


def _activity(job: Job, activity: FeatureActivity) -> Table:
    columns = {
        "density": activity.density(),
        "mean_activation": activity.mean_active(),
        "max_activation": activity.maximum,
        "mean_on_outlier": activity.mean_on("outlier"),
        "mean_on_other": activity.mean_on("other"),
        "energy": activity.energy(job.models.sae.w_dec),
        "rate": activity.contribution_rate(),
    }
    return Table({name: values.double().numpy() for name, values in columns.items()})
