"""Stage «train»: an SAE on those tokens, or the one given."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vitscope.axes import Rows
from vitscope.distributed import current_ranks, leave_unless_rank_0
from vitscope.sae.formats.hub import is_hub_address
from vitscope.sae.formats.load import SAMPLE_TOKENS, check_reconstruction
from vitscope.sae.log import require_trackers
from vitscope.sae.plan import NOT_IN_KEY
from vitscope.sae.source import TokenSource
from vitscope.sae.storage import check_fits, save_sae
from vitscope.sae.training import train_sae
from vitscope.stages.backbone import BackboneStage
from vitscope.stages.numbers import short
from vitscope.stages.stage import Job, Stage
from vitscope.store.stamp import read_stamp
from vitscope.tokens.encoding import PassClock, encode_images
from vitscope.tokens.sampling import Holding
from vitscope.tokens.sources import ShardSource, StreamSource

SAMPLE_IMAGES = 16
"""Images from which tokens are taken to try a given SAE on: more than one kind of picture."""


@dataclass(frozen=True)
class TrainingSummary:
    """How an SAE was trained here.

    Attributes:
        n_steps: optimiser steps.
        n_tokens: that it has seen.
        batch_fvu: variance unexplained of the last batch.
        held_out_fvu: of tokens that it has not seen.
        held_out_silent_share: share of features that none of those makes fire.
        held_out_tokens: how many they are.
        dead_share: share of features that the last ``dead_after_tokens`` tokens did not make fire.
        dead_after_tokens: after so many silent tokens a feature counts as dead.
        threshold: θ.
    """

    n_steps: int
    n_tokens: int
    batch_fvu: float
    held_out_fvu: float
    held_out_silent_share: float
    held_out_tokens: int
    dead_share: float
    dead_after_tokens: int
    threshold: float | None


@dataclass(frozen=True)
class GivenSae:
    """How an SAE that was brought along does on a sample of the backbone's tokens.

    Attributes:
        format: that it came in.
        n_tokens: of the sample.
        fvu: variance unexplained.
        norm_ratio: norm of the reconstruction over that of the tokens.
        l0: active features a token.
        dead_share: share of features that no token of the sample makes fire.
    """

    format: str
    n_tokens: int
    fvu: float
    norm_ratio: float
    l0: float
    dead_share: float


@dataclass(frozen=True)
class TrainResult:
    """The SAE of a run.

    Attributes:
        n_features: m.
        training: None for an SAE brought along.
        given: None for one trained here.
        files: weights and description, and the log of a training.
    """

    n_features: int
    training: TrainingSummary | None
    given: GivenSae | None
    files: tuple[Path, ...]


class TrainStage(Stage[TrainResult]):
    """Trains an SAE, or checks and copies the one that ``sae.path`` names."""

    name = "train"
    after = ("backbone", "images", "extract")
    shared = True
    Result = TrainResult

    def needs(self, job: Job) -> tuple[str, ...]:
        """Return the tokens' stage, or, for a given SAE, that of the images it is tried on."""
        return ("extract",) if job.study.sae.path is None else ("backbone", "images")

    def settings(self, job: Job) -> Mapping[str, Any]:
        """Return how it is trained, or which files are given; those that are gone are unchanged."""
        source = job.study.sae.path
        if source is None:
            return job.study.sae.model_dump(mode="json", exclude=NOT_IN_KEY)
        standing = read_stamp(job.run, self.name)
        known = {} if standing is None else standing.settings
        return {"given": _file_states(source) or known.get("given", {})}

    def run(self, job: Job) -> TrainResult:
        """Train, or take in."""
        return _train(job) if job.study.sae.path is None else _take_in(job)

    def headline(self, result: TrainResult) -> list[tuple[str, str]]:
        """Return its size, and how it came about."""
        text, found = f"{result.n_features:,} features", result.training
        if found is not None:
            text += f", {found.n_steps:,} steps, {found.n_tokens:,} tokens"
            text += f", held-out FVU {short(found.held_out_fvu)}"
        return [("SAE", text + self.remark(result))]

    def remark(self, result: TrainResult) -> str:
        """Return whether an SAE that was brought along belongs to the backbone."""
        found = result.given
        if found is None:
            return ""
        return (
            f"  {found.format}: FVU {short(found.fvu)}, L0 {short(found.l0)}, norm ratio "
            f"{short(found.norm_ratio)} on {found.n_tokens:,} tokens"
        )


def token_source(job: Job) -> TokenSource:
    """Return the tokens of a study whose stage «extract» has finished, some of them held out."""
    study, refs = job.study, job.images("train").usable
    holding = Holding(
        kind=study.sae.held_out,
        n_tokens=max(study.sae.threshold_tokens, study.sae.evaluation_tokens),
        share=study.sae.held_out_share,
    )
    if study.activations.cache:
        ids = [ref.id for ref in refs]
        return ShardSource.open(
            job.run.activations, seed=study.seed, image_ids=ids, holding=holding
        )
    return StreamSource(
        backbone=job.models.backbone,
        refs=refs,
        settings=study.activations,
        loader=job.options,
        seed=study.seed,
        holding=holding,
        stretch=study.stretch,
        ranks=current_ranks(),
    )


def _train(job: Job) -> TrainResult:
    study, run = job.study, job.run
    require_trackers(study.sae.track)
    trained = train_sae(
        token_source(job),
        study.sae,
        seed=study.seed,
        site=job.result(BackboneStage).site,
        checkpoint=run.checkpoint,
        fingerprint=job.fingerprint,
        log=run.training_log,
        device=job.models.device,
    )
    leave_unless_rank_0()
    if math.isfinite(trained.tokens_per_second):  # NaN where an earlier process did every step
        job.rates["tokens_per_s"] = round(trained.tokens_per_second)
    sae, info = trained.sae, trained.sae.info
    told = TrainingSummary(
        n_steps=trained.n_steps,
        n_tokens=trained.n_tokens,
        batch_fvu=round(trained.final.fvu, 4),
        held_out_fvu=round(float(info["held_out_fvu"]), 4),
        held_out_silent_share=round(float(info["held_out_silent_share"]), 4),
        held_out_tokens=int(info["held_out_n_tokens"]),
        dead_share=round(trained.final.dead_share, 4),
        dead_after_tokens=int(info["dead_after_tokens"]),
        threshold=sae.threshold,
    )
    files = (*save_sae(run.sae, sae), run.training_log)
    return TrainResult(sae.n_features, told, None, files)


def _take_in(job: Job) -> TrainResult:
    leave_unless_rank_0()
    sae, site = job.models.given_sae, job.result(BackboneStage).site
    check_fits(sae, site)
    found = check_reconstruction(sae, _sample_tokens(job))
    told = GivenSae(
        format=str(sae.info.get("format", "vitscope")),
        n_tokens=found.n_tokens,
        fvu=round(found.fvu, 4),
        norm_ratio=round(found.norm_ratio, 4),
        l0=round(found.l0, 2),
        dead_share=round(found.dead_share, 4),
    )
    # its site is known from here on, where the file had none
    files = save_sae(job.run.sae, replace(sae, site=sae.site or site))
    return TrainResult(sae.n_features, None, told, tuple(files))


def _sample_tokens(job: Job) -> Rows:
    """Return about 1,000 patch tokens, evenly from images spread over the evaluation set."""
    refs = job.eval_refs
    places = torch.linspace(0, len(refs) - 1, min(len(refs), SAMPLE_IMAGES)).long().tolist()
    batches = encode_images(
        job.models.backbone,
        [refs[place] for place in places],
        job.models.plain_view,
        job.options,
        clock=PassClock(),
    )
    rows = torch.cat([batch.tokens.patch.float().flatten(0, 1) for batch in batches])
    return rows[:: max(1, len(rows) // SAMPLE_TOKENS)][:SAMPLE_TOKENS].cpu()


def _file_states(source: Path) -> dict[str, str]:
    """Return path -> size and time of the given SAE's files; its address where it is on a hub."""
    if is_hub_address(source):
        return {str(source): "hub"}
    files = sorted(source.rglob("*")) if source.is_dir() else [source]
    found = {path: path.stat() for path in files if path.is_file()}
    return {str(path): f"{s.st_size} {s.st_mtime_ns}" for path, s in found.items()}
