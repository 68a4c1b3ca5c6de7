"""Stage «train»: a BatchTopK SAE on the extracted tokens, or a given one taken in."""

import math

from vitscope.activations.shard_source import ShardSource
from vitscope.artifacts.checksum import file_checksum
from vitscope.artifacts.stage import StageOutput
from vitscope.sae.storage import check_fits, load_sae, save_sae
from vitscope.sae.training import train_sae
from vitscope.stages.context import Context, StageOutcome


def run_train(context: Context) -> StageOutcome:
    """Train, or check and copy the SAE that ``sae.path`` names."""
    return _take_in(context) if context.study.sae.path is not None else _train(context)


def _train(context: Context) -> StageOutcome:
    study, run = context.study, context.run

    def body(fingerprint: str) -> StageOutput:
        trained = train_sae(
            ShardSource.open(run.activations, seed=study.seed),
            study.sae,
            seed=study.seed,
            site=context.backbone.site,
            checkpoint=run.checkpoint,
            fingerprint=fingerprint,
            log=run.training_log,
            device=context.device,
        )
        files = save_sae(run.sae, trained.sae)
        summary = {
            "features": trained.sae.n_features,
            "steps": trained.n_steps,
            "tokens": trained.n_tokens,
            "tokens_per_s": _rounded(trained.tokens_per_second),
            "batch_fvu": round(trained.final.fvu, 4),
            "dead_share": round(trained.final.dead_share, 4),
            "threshold": trained.sae.threshold,
        }
        return StageOutput([*files, run.training_log], summary)

    settings = study.sae.model_dump(exclude={"path", "checkpoint_every", "log_every"})
    return context.finish("train", settings=settings, after=("extract",), body=body)


def _rounded(rate: float) -> float | None:
    """NaN, where an earlier process had done every step, has no whole number."""
    return round(rate) if math.isfinite(rate) else None


def _take_in(context: Context) -> StageOutcome:
    folder = context.study.sae.path
    assert folder is not None
    sae = load_sae(folder)
    check_fits(sae, context.backbone.site)

    def body(_: str) -> StageOutput:
        return StageOutput(save_sae(context.run.sae, sae), {"features": sae.n_features})

    checksums = {
        path.name: file_checksum(path) for path in sorted(folder.iterdir()) if path.is_file()
    }
    return context.finish(
        "train",
        settings={"taken_in": True},
        after=(),
        extra_inputs={**checksums, "backbone": context.backbone_digest},
        body=body,
    )
