"""Stage «awcds»: activation-weighted CDS over the norm spectrum (Figure 7)."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vitscope.artifacts.stage import StageOutput
from vitscope.artifacts.tables import read_table, write_table
from vitscope.images.sources import ImageRef
from vitscope.images.subset import pick_images
from vitscope.scope.awcds import norm_spectrum, token_awcds
from vitscope.stages.chunked import Batches, pass_over
from vitscope.stages.context import Context, StageOutcome
from vitscope.stages.outliers import read_tau


def run_awcds(context: Context) -> StageOutcome:
    """Write ``tables/awcds.parquet``: one row per percentile bin of the token norm."""
    study, run = context.study, context.run

    def body(fingerprint: str) -> StageOutput:
        refs = pick_images(context.eval_refs(), study.awcds.images, study.seed)
        cds = torch.from_numpy(read_table(run.features)["cds"].astype(np.float64))
        reduce = partial(_weigh_chunk, context, cds)
        done = pass_over(context, "awcds", fingerprint, refs, context.plain_view, reduce)
        norms = torch.cat([part["norms"] for part in done.parts]).numpy()
        values = torch.cat([part["awcds"] for part in done.parts]).numpy()
        spectrum = norm_spectrum(norms, values, study.awcds.bins)
        path = run.columns("awcds")
        write_table(path, asdict(spectrum), {"stage": "awcds", "fingerprint": fingerprint})
        outlier = norms > read_tau(context)
        summary = {
            "on_outliers": _mean(values[outlier]),
            "on_others": _mean(values[~outlier]),
            "undefined": int(np.isnan(values).sum()),
            "tokens": norms.size,
        }
        return StageOutput([path], summary | done.rates)

    return context.finish(
        "awcds",
        settings=study.awcds.model_dump(),
        after=("images", "train", "outliers", "partition"),
        extra_inputs={"backbone": context.backbone_digest},
        body=body,
    )


def _mean(values: np.ndarray) -> float | None:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else None


def _weigh_chunk(
    context: Context, cds: Tensor, chunk: Sequence[ImageRef], batches: Batches
) -> dict[str, Tensor]:
    del chunk
    norms: list[Tensor] = []
    values: list[Tensor] = []
    for batch in batches:
        rows = batch.tokens.patch.float().reshape(-1, batch.tokens.patch.shape[-1])
        norms.append(rows.norm(dim=-1).double().cpu())
        values.append(token_awcds(context.sae.encode(rows), cds.to(rows.device)).cpu())
    return {"norms": torch.cat(norms), "awcds": torch.cat(values)}
