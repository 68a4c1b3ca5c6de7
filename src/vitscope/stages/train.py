"""Stage «train»: an SAE on the extracted tokens, or a given one taken in."""

import math
from dataclasses import replace

import torch

from vitscope.axes import Rows
from vitscope.distributed import rank_0_goes_on
from vitscope.sae.formats.diagnostics import SAMPLE_TOKENS, check_reconstruction
from vitscope.sae.log import require_trackers
from vitscope.sae.plan import NOT_IN_KEY
from vitscope.sae.storage import check_fits, sae_digest, save_sae
from vitscope.sae.training import train_sae
from vitscope.stages.context import Context, StageOutcome
from vitscope.stages.tokens import token_source
from vitscope.store.stage import StageOutput
from vitscope.tokens.encoding import PassClock, encode_images

SAMPLE_IMAGES = 16
"""Images from which tokens are taken to try a given SAE on: more than one kind of picture."""


def run_train(context: Context) -> StageOutcome:
    """Train, or check and copy the SAE that ``sae.path`` names."""
    return _take_in(context) if context.study.sae.path is not None else _train(context)


def _train(context: Context) -> StageOutcome:
    study, run = context.study, context.run
    require_trackers(study.sae.track)

    def body(fingerprint: str) -> StageOutput:
        trained = train_sae(
            token_source(context),
            study.sae,
            seed=study.seed,
            site=context.backbone.site,
            checkpoint=run.checkpoint,
            fingerprint=fingerprint,
            log=run.training_log,
            device=context.device,
        )
        rank_0_goes_on()
        files, info = save_sae(run.sae, trained.sae), trained.sae.info
        summary = {
            "features": trained.sae.n_features,
            "steps": trained.n_steps,
            "tokens": trained.n_tokens,
            "tokens_per_s": _rounded(trained.tokens_per_second),
            "batch_fvu": round(trained.final.fvu, 4),
            "held_out_fvu": round(float(info["held_out_fvu"]), 4),
            "held_out_silent_share": round(float(info["held_out_silent_share"]), 4),
            "held_out_tokens": info["held_out_n_tokens"],
            "dead_share": round(trained.final.dead_share, 4),
            "dead_after_tokens": info["dead_after_tokens"],
            "threshold": trained.sae.threshold,
        }
        return StageOutput([*files, run.training_log], summary)

    settings = study.sae.model_dump(exclude=NOT_IN_KEY)
    return context.finish("train", settings=settings, after=("extract",), body=body, shared=True)


def _rounded(rate: float) -> float | None:
    """NaN, where an earlier process had done every step, has no whole number."""
    return round(rate) if math.isfinite(rate) else None


def _take_in(context: Context) -> StageOutcome:
    sae = context.given_sae
    check_fits(sae, context.backbone.site)

    def body(_: str) -> StageOutput:
        found = check_reconstruction(sae, _sample_tokens(context))
        summary = {
            "features": sae.n_features,
            "format": sae.info.get("format", "vitscope"),
            "sample_tokens": found.n_tokens,
            "sample_fvu": round(found.fvu, 4),
            "norm_ratio": round(found.norm_ratio, 4),
            "sample_l0": round(found.l0, 2),
            "sample_dead_share": round(found.dead_share, 4),
        }
        site = sae.site or context.backbone.site  # known from here on, where the file had none
        return StageOutput(save_sae(context.run.sae, replace(sae, site=site)), summary)

    return context.finish(
        "train",
        settings={"taken_in": True},
        after=("images",),
        extra_inputs={"sae": sae_digest(sae), "backbone": context.backbone_digest},
        body=body,
    )


def _sample_tokens(context: Context) -> Rows:
    """Return about 1,000 patch tokens, evenly from images spread over the evaluation set."""
    refs = context.eval_refs()
    places = torch.linspace(0, len(refs) - 1, min(len(refs), SAMPLE_IMAGES)).long().tolist()
    batches = encode_images(
        context.backbone,
        [refs[place] for place in places],
        context.plain_view,
        context.reading,
        clock=PassClock(),
    )
    rows = torch.cat([batch.tokens.patch.float().flatten(0, 1) for batch in batches])
    return rows[:: max(1, len(rows) // SAMPLE_TOKENS)][:SAMPLE_TOKENS].cpu()
