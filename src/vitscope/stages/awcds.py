"""Stage «awcds»: activation-weighted CDS over the norm spectrum (Figure 7)."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vitscope.images.sources import ImageRef, pick_images
from vitscope.scope.awcds import norm_spectrum, token_scope
from vitscope.stages.chunked import Batches, pass_over
from vitscope.stages.context import Context, StageOutcome
from vitscope.stages.outliers import read_tau
from vitscope.store.stage import StageOutput
from vitscope.store.tables import read_table, write_table

COLUMNS = ("norms", "awcds", "scored", "active")
"""What a chunk keeps of every token, image by image."""

TOKENS_AT_ONCE = 2048
"""Tokens whose codes are held at a time: with 49,152 features 400 MB."""


def run_awcds(context: Context) -> StageOutcome:
    """Write ``tables/awcds.parquet``: one row per percentile bin of the token norm."""
    study, run = context.study, context.run

    def body(fingerprint: str) -> StageOutput:
        refs = pick_images(context.eval_refs(), study.awcds.images, study.seed)
        cds = torch.from_numpy(read_table(run.features)["cds"].astype(np.float64))
        reduce = partial(_weigh_chunk, context, cds)
        done = pass_over(context, "awcds", fingerprint, refs, context.plain_view, reduce)
        norms, values, scored, active = (
            torch.cat([part[name] for part in done.parts]).numpy() for name in COLUMNS
        )
        spectrum = norm_spectrum(norms, values, scored, active, study.awcds.bins, seed=study.seed)
        path = run.columns("awcds")
        write_table(path, asdict(spectrum), {"stage": "awcds", "fingerprint": fingerprint})
        outlier = norms > read_tau(context)
        summary = {
            "on_outliers": _mean(values[outlier]),
            "on_others": _mean(values[~outlier]),
            "undefined": int(np.isnan(values).sum()),
            "undefined_on_outliers": int(np.isnan(values[outlier]).sum()),
            "silent": int((active == 0).sum()),
            "scored_share": float(scored.sum() / active.sum()) if active.any() else None,
            "tokens": norms.size,
        }
        return StageOutput([path], summary | done.rates)

    return context.finish(
        "awcds",
        settings=study.awcds.model_dump(),
        after=("images", "train", "outliers", "partition"),
        extra_inputs={"backbone": context.backbone_digest},
        body=body,
        shared=True,
    )


def _mean(values: np.ndarray) -> float | None:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else None


def _weigh_chunk(
    context: Context, cds: Tensor, chunk: Sequence[ImageRef], batches: Batches
) -> dict[str, Tensor]:
    del chunk
    found: dict[str, list[Tensor]] = {name: [] for name in COLUMNS}
    for batch in batches:
        patch = batch.tokens.patch.float()
        rows = patch.reshape(-1, patch.shape[-1])
        parts = [
            token_scope(context.sae.encode(some).clamp_min(0), cds.to(rows.device))
            for some in rows.split(TOKENS_AT_ONCE)
        ]
        found["norms"].append(patch.norm(dim=-1).double().cpu())
        for name in COLUMNS[1:]:
            column = torch.cat([getattr(part, name) for part in parts])
            found[name].append(column.reshape(patch.shape[:2]).cpu())
    return {name: torch.cat(columns) for name, columns in found.items()}
