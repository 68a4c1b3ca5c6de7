"""Stage «awcds»: activation-weighted CDS over the norm spectrum."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitscope.images.sources import ImageRef, pick_images
from vitscope.scope.awcds import NormSpectrum, norm_spectrum, token_scope
from vitscope.stages.numbers import short
from vitscope.stages.outliers import OutliersStage
from vitscope.stages.partition import PartitionStage
from vitscope.stages.passes import Batches, pass_over
from vitscope.stages.stage import Job, Stage
from vitscope.store.records import At
from vitscope.store.tables import Table

TOKEN_COLUMNS = ("norms", "awcds", "scored", "active")
"""What a chunk keeps of every token, image by image."""

TOKENS_AT_ONCE = 2048
"""Tokens whose codes are held at a time: with 49,152 features 400 MB."""


@dataclass(frozen=True)
class AwcdsResult:
    """awCDS of patch tokens (Figure 7).

    Attributes:
        on_outliers: mean over tokens above τ; NaN without any.
        on_others: mean over the others.
        n_tokens: looked at.
        n_undefined: of them, without an awCDS.
        n_undefined_on_outliers: of the outliers.
        n_silent: without any active feature.
        scored_share: share of all activation that is on features with a score.
        bins: one row a percentile bin of the token norm.
    """

    on_outliers: float
    on_others: float
    n_tokens: int
    n_undefined: int
    n_undefined_on_outliers: int
    n_silent: int
    scored_share: float
    bins: Annotated[Table, At("tables/awcds.parquet")]

    @property
    def spectrum(self) -> NormSpectrum:
        """The bins as a record of arrays."""
        return NormSpectrum(**{f.name: self.bins[f.name] for f in fields(NormSpectrum)})


class AwcdsStage(Stage[AwcdsResult]):
    """Weighs every token's active features by their CDS (protocol, section 8)."""

    name = "awcds"
    after = ("backbone", "images", "train", "outliers", "partition")
    shared = True
    Result = AwcdsResult

    def settings(self, job: Job) -> Mapping[str, Any]:
        """Return which images and how many bins."""
        return job.study.awcds.model_dump()

    def run(self, job: Job) -> AwcdsResult:
        """Encode evaluation images."""
        study = job.study
        refs = pick_images(job.eval_refs, study.awcds.images, study.seed)
        cds = torch.from_numpy(job.result(PartitionStage).cds)
        parts = list(pass_over(job, refs, job.models.plain_view, partial(_weigh_chunk, job, cds)))
        norms, values, scored, active = (
            torch.cat([part[name] for part in parts]).numpy() for name in TOKEN_COLUMNS
        )
        spectrum = norm_spectrum(norms, values, scored, active, study.awcds.bins, seed=study.seed)
        outlier = norms > job.result(OutliersStage).tau
        return AwcdsResult(
            on_outliers=_mean(values[outlier]),
            on_others=_mean(values[~outlier]),
            n_tokens=int(norms.size),
            n_undefined=int(np.isnan(values).sum()),
            n_undefined_on_outliers=int(np.isnan(values[outlier]).sum()),
            n_silent=int((active == 0).sum()),
            scored_share=float(scored.sum() / active.sum()) if active.any() else float("nan"),
            bins=Table(asdict(spectrum)),
        )

    def headline(self, result: AwcdsResult) -> list[tuple[str, str]]:
        """Return the mean of outliers beside that of other tokens."""
        return [
            ("awCDS outlier / other", f"{short(result.on_outliers)} / {short(result.on_others)}")
        ]


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _weigh_chunk(
    job: Job, cds: Tensor, chunk: Sequence[ImageRef], batches: Batches
) -> dict[str, Tensor]:
    del chunk
    found: dict[str, list[Tensor]] = {name: [] for name in TOKEN_COLUMNS}
    for batch in batches:
        patch = batch.tokens.patch.float()
        rows = patch.reshape(-1, patch.shape[-1])
        parts = [
            token_scope(job.models.sae.encode(some).clamp_min(0), cds.to(rows.device))
            for some in rows.split(TOKENS_AT_ONCE)
        ]
        found["norms"].append(patch.norm(dim=-1).double().cpu())
        for name in TOKEN_COLUMNS[1:]:
            column = torch.cat([getattr(part, name) for part in parts])
            found[name].append(column.reshape(patch.shape[:2]).cpu())
    return {name: torch.cat(columns) for name, columns in found.items()}
