"""Stage «outliers»: token norms and the outlier threshold τ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from vitscope.backbones.zoo import ZOO
from vitscope.images.sources import ImageRef, pick_images
from vitscope.scope.outliers import (
    SMALLEST_NORM,
    NormHistogram,
    OutlierThreshold,
    propose_tau,
    tau_evidence,
)
from vitscope.scope.thresholds import ThresholdEvidence
from vitscope.stages.backbone import is_at_paper_layer
from vitscope.stages.numbers import short
from vitscope.stages.passes import Batches, pass_over
from vitscope.stages.stage import Job, Stage
from vitscope.store.records import At
from vitscope.store.tables import Table

N_NORM_BINS = 200


@dataclass(frozen=True)
class OutliersResult:
    """Norms of patch tokens.

    Attributes:
        threshold: τ and how it came about.
        evidence: how firm it is, and what else it could be.
        n_images: whose tokens were looked at.
        n_tokens: of them.
        histogram: one row a bin: ``log10_low``, ``log10_high``, ``n_tokens``.
    """

    threshold: OutlierThreshold
    evidence: ThresholdEvidence
    n_images: int
    n_tokens: int
    histogram: Annotated[Table, At("tables/norm_histogram.parquet")]

    @property
    def tau(self) -> float:
        """Norm above which a token is an outlier."""
        return self.threshold.tau

    @property
    def norms(self) -> NormHistogram:
        """The histogram as figures take it."""
        table = self.histogram
        edges = np.append(table["log10_low"], table["log10_high"][-1])
        return NormHistogram(edges=edges, counts=table["n_tokens"])


class OutliersStage(Stage[OutliersResult]):
    """Proposes τ from the norms, unless it is given or the zoo knows it."""

    name = "outliers"
    after = ("backbone", "images")
    shared = True
    Result = OutliersResult

    def settings(self, job: Job) -> Mapping[str, Any]:
        """Return what τ depends on."""
        chosen = job.study.outliers.model_dump(include={"tau", "tau_percentile", "images"})
        return {"known": _paper_tau(job), **chosen}

    def run(self, job: Job) -> OutliersResult:
        """Take the norms of the evaluation images."""
        settings, seed, known = job.study.outliers, job.study.seed, _paper_tau(job)
        refs = pick_images(job.eval_refs, settings.images, seed)
        parts = list(pass_over(job, refs, job.models.plain_view, _norms))
        norms = torch.cat([part["norms"] for part in parts]).double().numpy()
        threshold = propose_tau(norms, settings, known=known)
        counts, edges = np.histogram(np.log10(np.maximum(norms, SMALLEST_NORM)), N_NORM_BINS)
        bins = {"log10_low": edges[:-1], "log10_high": edges[1:], "n_tokens": counts}
        return OutliersResult(
            threshold=threshold,
            evidence=tau_evidence(norms, threshold, settings, seed=seed, known=known),
            n_images=len(refs),
            n_tokens=int(norms.size),
            histogram=Table(bins),
        )

    def headline(self, result: OutliersResult) -> list[tuple[str, str]]:
        """Return τ, and how it was found."""
        found = result.threshold
        text = f"{short(found.tau)}, {found.share:.2%} of patch tokens above"
        return [("τ", text), ("", f"[dim]{found.message}[/dim]")]


def _paper_tau(job: Job) -> float | None:
    # the paper's threshold is of one block: at another, norms are of another size
    return ZOO[job.study.backbone.name].tau if is_at_paper_layer(job) else None


def _norms(chunk: Sequence[ImageRef], batches: Batches) -> dict[str, Tensor]:
    del chunk
    return {
        "norms": torch.cat([batch.tokens.patch.norm(dim=-1).float().cpu() for batch in batches])
    }
