"""Stage «outliers»: patch-token norms of the evaluation images, and τ."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from vitscope.backbones.zoo import ZOO
from vitscope.images.sources import ImageRef, pick_images
from vitscope.scope.outliers import SMALLEST_NORM, propose_tau
from vitscope.scope.tau_evidence import tau_evidence
from vitscope.stages.chunked import Batches, pass_over
from vitscope.stages.context import Context, StageOutcome
from vitscope.store.atomic import read_json, write_json
from vitscope.store.stage import StageOutput
from vitscope.store.tables import write_table

N_NORM_BINS = 200


def run_outliers(context: Context) -> StageOutcome:
    """Propose τ from the norms, unless it is given or the zoo knows it."""
    study, run = context.study, context.run
    settings, known = study.outliers, _zoo_tau(context)

    def body(fingerprint: str) -> StageOutput:
        refs = pick_images(context.eval_refs(), settings.images, study.seed)
        done = pass_over(context, "outliers", fingerprint, refs, context.plain_view, _norms)
        norms = torch.cat([part["norms"] for part in done.parts]).double().numpy()
        threshold = propose_tau(norms, settings, known=known)
        evidence = tau_evidence(norms, threshold, settings, seed=study.seed, known=known)
        counts, edges = np.histogram(np.log10(np.maximum(norms, SMALLEST_NORM)), N_NORM_BINS)
        table, histogram = run.table("outliers"), run.columns("norm_histogram")
        write_json(
            table,
            asdict(threshold)
            | {"n_images": len(refs), "n_tokens": norms.size, "evidence": asdict(evidence)},
        )
        write_table(
            histogram,
            {"log10_low": edges[:-1], "log10_high": edges[1:], "n_tokens": counts},
            {"stage": "outliers", "fingerprint": fingerprint},
        )
        summary = {"tau": threshold.tau, "share": threshold.share, "message": threshold.message}
        return StageOutput([table, histogram], summary | done.rates)

    return context.finish(
        "outliers",
        settings={
            "known": known,
            **settings.model_dump(include={"tau", "tau_percentile", "images"}),
        },
        after=("images",),
        extra_inputs={"backbone": context.backbone_digest},
        body=body,
        shared=True,
    )


def read_tau(context: Context) -> float:
    """Return τ as stage «outliers» left it."""
    context.done("outliers")
    return float(read_json(context.run.table("outliers"))["tau"])


def _zoo_tau(context: Context) -> float | None:
    entry = ZOO.get(context.study.backbone.name)
    # the paper's threshold is of one block: at another, norms are of another size
    return entry.tau if entry and entry.layer == context.backbone.site.layer else None


def _norms(chunk: Sequence[ImageRef], batches: Batches) -> dict[str, Tensor]:
    del chunk
    return {
        "norms": torch.cat([batch.tokens.patch.norm(dim=-1).float().cpu() for batch in batches])
    }
