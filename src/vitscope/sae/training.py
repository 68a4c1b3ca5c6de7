"""BatchTopK training, resumable to the bit on the CPU (protocol, section 2)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from vitscope.axes import Rows
from vitscope.backbones.backbone import Site
from vitscope.progress import Tracker, track
from vitscope.sae.checkpoint import load_checkpoint, save_checkpoint
from vitscope.sae.finish import finished_sae
from vitscope.sae.metrics_log import MetricsLog
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.normalisation import Normalisation, fit_normalisation
from vitscope.sae.parameters import Parameters, initial_parameters
from vitscope.sae.plan import TrainingPlan, plan_training
from vitscope.sae.schedule import learning_rate
from vitscope.sae.settings import SaeSettings
from vitscope.sae.source import TokenSource
from vitscope.sae.state import StepFigures, TrainingState, new_state
from vitscope.sae.step import require_finite, take_step


@dataclass(frozen=True, eq=False)
class TrainedSae:
    """A finished training.

    Attributes:
        sae: on raw activations, θ fitted.
        n_tokens: tokens seen, those of every epoch and of earlier processes included.
        n_steps: optimiser steps, likewise.
        resumed_from: steps that earlier processes had done.
        final: figures of the last step, under batch top-k (those under θ are the metrics').
        tokens_per_second: of this process's steps; NaN where none was left to do.
    """

    sae: SparseAutoencoder
    n_tokens: int
    n_steps: int
    resumed_from: int
    final: StepFigures
    tokens_per_second: float


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

    Args:
        source: raw activations.
        settings: size, budget and rates; ``path`` is ignored.
        seed: of the initial weights.
        site: recorded with the SAE.
        checkpoint: where the state is kept every ``checkpoint_every`` steps and after the last;
            a training killed and called again continues there. The caller removes it.
        fingerprint: of whatever else decides the tokens; a checkpoint under another is ignored.
        log: a JSON-lines file of figures per step.
        device: where the arithmetic happens.

    Raises:
        SaeError: K exceeds the dictionary, the tokens are unusable, or training diverged.
    """
    plan = plan_training(settings, source, seed=seed, fingerprint=fingerprint)
    state, normalisation = _start(source, plan, checkpoint, device)
    resumed_from = state.step
    with (
        torch.no_grad(),
        MetricsLog(log, resumed_from=resumed_from) as lines,
        track("train SAE", plan.n_steps * plan.batch, "tokens") as progress,
    ):
        progress.skip(state.step * plan.batch)
        buffer = torch.empty(plan.batch, plan.n_features, device=device)
        for raw in _batches(source, plan, state.step):
            rate = learning_rate(settings, state.step, plan.n_steps)
            figures = take_step(state, normalisation.apply(raw.to(device)), plan, rate, buffer)
            _show(progress, plan, figures)
            last = state.step == plan.n_steps
            if last or state.step % settings.log_every == 0:
                lines.write(figures, rate)
            if last or state.step % settings.checkpoint_every == 0:
                require_finite(state)
                if checkpoint is not None:
                    save_checkpoint(checkpoint, state, normalisation, plan.key)
        speed = progress.rate if state.step > resumed_from else math.nan
        sae = finished_sae(source, plan, state, normalisation, site)
    assert state.figures is not None
    return TrainedSae(
        sae=sae,
        n_tokens=state.step * plan.batch,
        n_steps=state.step,
        resumed_from=resumed_from,
        final=state.figures,
        tokens_per_second=speed,
    )


def _start(
    source: TokenSource, plan: TrainingPlan, checkpoint: Path | None, device: torch.device | str
) -> tuple[TrainingState, Normalisation]:
    """Return the state of an earlier process, or that before the first step."""
    found = None if checkpoint is None else load_checkpoint(checkpoint, plan.key, device)
    if found is not None:
        return found
    normalisation = fit_normalisation(source.sample(plan.settings.statistics_tokens).to(device))
    initial = initial_parameters(source.width, plan.n_features, seed=plan.seed).named()
    parameters = Parameters(**{name: tensor.to(device) for name, tensor in initial.items()})
    return new_state(parameters), normalisation


def _batches(source: TokenSource, plan: TrainingPlan, start: int) -> Iterator[Rows]:
    """Yield the batches of step ``start`` and after, wherever in an epoch that is."""
    step = start
    while step < plan.n_steps:
        epoch, skip = divmod(step, plan.batches_per_epoch)
        for batch in source.epoch_batches(epoch, plan.batch, skip):
            yield batch
            step += 1
            if step == plan.n_steps:
                return
        assert step == (epoch + 1) * plan.batches_per_epoch, (
            "a token source must yield n_tokens // batch_size batches an epoch"
        )


def _show(progress: Tracker, plan: TrainingPlan, figures: StepFigures) -> None:
    progress.note(
        f"loss {figures.loss:.4f}, FVU {figures.fvu:.3f}, L0 {figures.l0:.1f}, "
        f"dead {figures.dead_share:.1%}"
    )
    progress.advance(plan.batch)
