"""Training of one SAE or several, resumable to the bit on the CPU (protocol, section 2)."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from vitscope.axes import Rows
from vitscope.backbones.backbone import Site
from vitscope.distributed import current_ranks
from vitscope.errors import SaeError
from vitscope.progress import Tracker, track
from vitscope.sae.learner import NOWHERE, Keeping, Learner
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.plan import TrainingPlan, plan_training
from vitscope.sae.precision import products_rounded_to
from vitscope.sae.settings import SaeSettings
from vitscope.sae.source import TokenSource
from vitscope.sae.state import StepFigures
from vitscope.sae.step import BadStepError
from vitscope.sae.stepper import Buffers
from vitscope.tokens.sampling import HeldOut

NAMED_IMAGES = 3
"""Images that a message names; of many, the first."""


@dataclass(frozen=True, eq=False)
class TrainedSae:
    """A finished training.

    Attributes:
        sae: on raw activations, θ fitted.
        n_tokens: tokens seen, those of every epoch and of earlier processes included.
        n_steps: optimiser steps, likewise.
        resumed_from: steps that earlier processes had done.
        final: figures of the last step, under batch top-k (those under θ are the metrics').
        tokens_per_second: of this process's steps, all SAEs of the pass together; NaN where none
            was left to do.
    """

    sae: SparseAutoencoder
    n_tokens: int
    n_steps: int
    resumed_from: int
    final: StepFigures
    tokens_per_second: float


@dataclass(frozen=True)
class TrainingJob:
    """One SAE to train.

    Attributes:
        settings: size, budget and rates; ``path`` and ``sweep`` are ignored.
        seed: of the initial weights.
        keeping: where its state and figures go.
    """

    settings: SaeSettings
    seed: int
    keeping: Keeping = NOWHERE


def train_sae(
    source: TokenSource,
    settings: SaeSettings,
    *,
    seed: int,
    site: Site | None = None,
    checkpoint: Path | None = None,
    fingerprint: str = "",
    log: Path | None = None,
    device: torch.device | str = "cpu",
) -> TrainedSae:
    """Train an SAE on ``source``.

    Where torch.distributed is initialised, every rank calls this with equal arguments: the ranks
    share each batch, keep the B·K largest activations of the whole of it, and end with the same
    SAE. Rank 0 writes the checkpoint and the log.

    Args:
        source: raw activations.
        settings: size, budget and rates; ``path`` and ``sweep`` are ignored.
        seed: of the initial weights.
        site: recorded with the SAE.
        checkpoint: where the state is kept every ``checkpoint_every`` steps and after the last;
            a training killed and called again continues there. The caller removes it.
        fingerprint: of whatever else decides the tokens; a checkpoint under another is ignored.
        log: a JSON-lines file of figures per step.
        device: where the arithmetic happens.

    Raises:
        SaeError: K exceeds the dictionary, the tokens are unusable, or training diverged.
        DistributedError: there are more ranks than rows of a batch, or they do not start alike.
    """
    job = TrainingJob(settings, seed, Keeping(checkpoint, log))
    return train_saes(source, [job], site=site, fingerprint=fingerprint, device=device)[0]


def train_saes(
    source: TokenSource,
    jobs: Sequence[TrainingJob],
    *,
    site: Site | None = None,
    fingerprint: str = "",
    device: torch.device | str = "cpu",
) -> list[TrainedSae]:
    """Train several SAEs over one pass of ``source``; each equals one trained by itself.

    Args:
        source: raw activations.
        jobs: the SAEs, at least one; with the same batches and steps.
        site: as for :func:`train_sae`, like the others.
        fingerprint: of whatever else decides the tokens.
        device: where the arithmetic happens.

    Raises:
        SaeError: as for :func:`train_sae`; or the jobs differ in batch size or steps.
        DistributedError: as for :func:`train_sae`.
    """
    ranks = current_ranks()
    plans = [
        plan_training(
            job.settings,
            source,
            seed=job.seed,
            fingerprint=fingerprint,
            matmul_dtype=products_rounded_to(job.settings, torch.device(device), ranks),
        )
        for job in jobs
    ]
    _require_one_pass(plans)
    with torch.no_grad(), ExitStack() as stack:
        learners = [
            stack.enter_context(Learner(source, plan, job.keeping, ranks, device))
            for plan, job in zip(plans, jobs, strict=True)
        ]
        wanted = [(job.settings.threshold_tokens, job.settings.evaluation_tokens) for job in jobs]
        held = source.held_out(max(map(max, wanted)))
        speed = _pass_over(source, learners, held)
        return [_trained(learner, learner.finished(
            held.first(learner.plan.settings.threshold_tokens), site), speed)
            for learner in learners]  # fmt: skip


def _trained(learner: Learner, sae: SparseAutoencoder, speed: float) -> TrainedSae:
    state = learner.state
    assert state.figures is not None
    return TrainedSae(
        sae=sae,
        n_tokens=state.step * learner.plan.batch,
        n_steps=state.step,
        resumed_from=learner.resumed_from,
        final=state.figures,
        tokens_per_second=speed,
    )


def _pass_over(source: TokenSource, learners: Sequence[Learner], held: HeldOut) -> float:
    """Take every step that is left; return tokens per second."""
    unfinished = [one.state.step for one in learners if not one.done]
    if not unfinished:
        return math.nan
    plan, start = learners[0].plan, min(unfinished)
    buffers = Buffers()
    label = "train SAE" if len(learners) == 1 else f"train {len(learners)} SAEs"
    with track(label, plan.n_steps * plan.batch, "tokens") as progress:
        progress.skip(start * plan.batch)
        for step, raw in _batches(source, plan, start):
            # one that an earlier process left further ahead waits for the others
            active = [one for one in learners if not one.done and one.state.step == step]
            for one in active:
                try:
                    one.learn(raw, buffers, held)
                except BadStepError as error:
                    raise _with_images(error, source, plan) from error
            _show(progress, plan, learners)
            if all(one.done for one in learners):
                break
        return progress.rate


def _with_images(error: BadStepError, source: TokenSource, plan: TrainingPlan) -> SaeError:
    """Return the same error, with the batch and its images."""
    epoch, batch = divmod(error.step - 1, plan.batches_per_epoch)
    images = source.images_of(epoch, plan.batch, batch)
    named = list(dict.fromkeys(images[row] for row in error.rows or range(len(images))))
    more = f" and {len(named) - NAMED_IMAGES} more" if len(named) > NAMED_IMAGES else ""
    return SaeError(
        f"{error} (batch {batch} of epoch {epoch}, images {', '.join(named[:NAMED_IMAGES])}{more})"
    )


def _require_one_pass(plans: Sequence[TrainingPlan]) -> None:
    if len({(plan.batch, plan.n_steps) for plan in plans}) > 1:
        raise SaeError(
            "SAEs that are trained over one pass must share batch_size, epochs and steps; train "
            "them one by one"
        )


def _batches(source: TokenSource, plan: TrainingPlan, start: int) -> Iterator[tuple[int, Rows]]:
    """Yield the batches of step ``start`` and after, wherever in an epoch that is."""
    step = start
    while step < plan.n_steps:
        epoch, skip = divmod(step, plan.batches_per_epoch)
        for batch in source.epoch_batches(epoch, plan.batch, skip):
            yield step, batch
            step += 1
            if step == plan.n_steps:
                return
        assert step == (epoch + 1) * plan.batches_per_epoch, (
            "a token source must yield n_tokens // batch_size batches an epoch"
        )


def _show(progress: Tracker, plan: TrainingPlan, learners: Sequence[Learner]) -> None:
    figures = [one.state.figures for one in learners if one.state.figures is not None]
    if len(figures) == 1:
        one = figures[0]
        progress.note(
            f"loss {one.loss:.4f}, FVU {one.fvu:.3f}, L0 {one.l0:.1f}, dead {one.dead_share:.1%}"
        )
    elif figures:  # on a device, there are none before the first are read
        fvus = [one.fvu for one in figures]
        worst = max(one.dead_share for one in figures)
        progress.note(f"FVU {min(fvus):.3f} to {max(fvus):.3f}, dead at most {worst:.1%}")
    progress.advance(plan.batch)
