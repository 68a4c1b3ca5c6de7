"""Training of one SAE or several, resumable to the bit on the CPU (protocol, section 2)."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from vitscope.axes import Rows
from vitscope.backbones.backbone import Site
from vitscope.distributed import DistributedError, Ranks, current_ranks, share
from vitscope.errors import SaeError
from vitscope.progress import Tracker, track
from vitscope.sae.log import MetricsLog
from vitscope.sae.model import Info, SparseAutoencoder
from vitscope.sae.parameters import (
    START_TOKENS,
    Normalisation,
    as_autoencoder,
    fit_normalisation,
    started_parameters,
)
from vitscope.sae.plan import TrainingPlan, plan_training
from vitscope.sae.selection import PreActivationBuffer
from vitscope.sae.settings import SaeSettings
from vitscope.sae.source import TokenSource
from vitscope.sae.step import (
    BadStepError,
    StepFigures,
    TrainingState,
    load_checkpoint,
    new_buffer,
    new_state,
    require_finite_weights,
    save_checkpoint,
    take_step,
)
from vitscope.sae.threshold import HeldOutFigures, evaluate_held_out, fit_with_interval
from vitscope.tokens.sampling import HeldOut

_NAMED_IMAGES = 3
"""Images that a message names; of many, the first."""

_METHOD_LABELS = {
    "batch-topk": "BatchTopK",
    "topk": "TopK",
    "relu": "ReLU + L1",
    "jumprelu": "JumpReLU",
    "matryoshka": "Matryoshka BatchTopK",
}
"""As the literature calls them: how a card names the method."""

Buffers = dict[tuple[int, int, str], PreActivationBuffer]
"""Buffers by rows, features and rounding of the product; SAEs of one pass share them."""


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
        checkpoint: where its state is kept, every ``checkpoint_every`` steps and after the last;
            None keeps none.
        log: a JSON-lines file of figures per step, with the trackers' files beside it; or None.
    """

    settings: SaeSettings
    seed: int
    checkpoint: Path | None = None
    log: Path | None = None


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
    job = TrainingJob(settings, seed, checkpoint, log)
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
            device=device,
        )
        for job in jobs
    ]
    _require_one_pass(plans)
    with torch.no_grad(), ExitStack() as stack:
        learners = [
            stack.enter_context(_Learner(source, plan, job, ranks, device))
            for plan, job in zip(plans, jobs, strict=True)
        ]
        wanted = [(job.settings.threshold_tokens, job.settings.evaluation_tokens) for job in jobs]
        held = source.held_out(max(map(max, wanted)))
        speed = _pass_over(source, learners, held)
        return [learner.finished(held, site, speed) for learner in learners]


class _Learner(AbstractContextManager["_Learner"]):
    """An SAE in training. Every rank has an equal one; rank 0 alone writes.

    Attributes:
        plan: of the training.
        state: changes with every step.
        normalisation: of the inputs.
        resumed_from: steps that an earlier process had done.
    """

    def __init__(
        self,
        source: TokenSource,
        plan: TrainingPlan,
        job: TrainingJob,
        ranks: Ranks,
        device: torch.device | str,
    ) -> None:
        self.plan, self._ranks, self._device = plan, ranks, device
        self.state, self.normalisation = _first_state(source, plan, job.checkpoint, ranks, device)
        self.resumed_from = self.state.step
        self._mine = share(plan.batch, ranks)
        writes = ranks.rank == 0
        self._checkpoint = job.checkpoint if writes else None
        log = job.log if writes else None
        self._lines = MetricsLog(log, plan.settings, resumed_from=self.resumed_from)

    def __enter__(self) -> Self:
        self._lines.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the log."""
        self._lines.__exit__(kind, error, trace)

    @property
    def end(self) -> int:
        """The step after which training ends."""
        return self.state.early_stop.end or self.plan.n_steps

    @property
    def done(self) -> bool:
        """Whether the last step was taken."""
        return self.state.step >= self.end

    def learn(self, raw: Rows, buffers: Buffers, held: HeldOut) -> None:
        """Take one step on the raw rows of a global batch; evaluate, log and save if it is time.

        Args:
            raw: the batch ``[B, d]`` of all ranks.
            buffers: for this rank's rows; several learners may share them.
            held: tokens to evaluate on.

        Raises:
            BadStepError: the inputs, the loss or the weights are not finite.
        """
        plan, state, settings = self.plan, self.state, self.plan.settings
        rate = plan.learning_rate(state.step, state.early_stop.end)
        x = self.normalisation.apply(_moved(raw[self._mine], self._device))
        size = (x.shape[0], plan.n_features, plan.matmul_dtype)
        if size not in buffers:
            buffers[size] = new_buffer(plan, x)
        figures = take_step(state, x, plan, rate, buffers[size], self._ranks)
        evaluated = self._evaluated(held) if self._is_time(settings.evaluate_every) else None
        if evaluated is not None or self._is_time(settings.log_every):
            self._lines.write(figures, rate, evaluated, state.threshold)
        if self._is_time(settings.checkpoint_every):
            require_finite_weights(state)
            if self._checkpoint is not None:
                save_checkpoint(self._checkpoint, state, self.normalisation, plan.key)

    def finished(self, held: HeldOut, site: Site | None, speed: float) -> TrainedSae:
        """Fold the normalisation into the weights, fit θ on held-out tokens, record all of it."""
        plan, state = self.plan, self.state
        assert state.figures is not None
        held = held.first(plan.settings.threshold_tokens)
        sae = as_autoencoder(state.parameters, self.normalisation, plan)
        info: Info = {
            "method": _METHOD_LABELS[plan.settings.method],
            "expansion": plan.settings.expansion,
            "seed": plan.seed,
            "steps": state.step,
            "steps_planned": plan.n_steps,
            "batch_size": plan.batch,
            "tokens": state.step * plan.batch,
            "learning_rate": plan.settings.learning_rate,
            "matmul_dtype": plan.matmul_dtype,
            "aux_k": plan.objective.aux_k,
            "dead_after_tokens": plan.dead_after,
            "dead_share": state.figures.dead_share,
            "input_scale": self.normalisation.scale,
        }
        if plan.objective.has_one_threshold:
            fit = fit_with_interval(sae, held, seed=plan.seed)
            sae = replace(sae, threshold=fit.value)
            info |= {"threshold_tokens": len(held.tokens), "threshold_images": fit.n_images}
            if not math.isnan(fit.low):  # NaN is no JSON
                info |= {"threshold_low": fit.low, "threshold_high": fit.high}
        info["held_out"] = held.kind
        figures = asdict(evaluate_held_out(sae, held.tokens))
        info |= {f"held_out_{name}": value for name, value in figures.items()}
        w_enc, w_dec = (
            sae.w_enc.contiguous(),
            sae.w_dec.clone(),
        )  # views of the training's until now
        return TrainedSae(
            sae=replace(sae, w_enc=w_enc, w_dec=w_dec, site=site, info=info).to("cpu"),
            n_tokens=state.step * plan.batch,
            n_steps=state.step,
            resumed_from=self.resumed_from,
            final=state.figures,
            tokens_per_second=speed,
        )

    def _is_time(self, every: int) -> bool:
        return self.done or (every > 0 and self.state.step % every == 0)

    def _evaluated(self, held: HeldOut) -> HeldOutFigures:
        """Return figures under the running θ; bring the training's end forward if it is time."""
        state, plan, settings = self.state, self.plan, self.plan.settings
        theta = state.threshold or 0.0
        sae = as_autoencoder(state.parameters, self.normalisation, plan, theta)
        found = evaluate_held_out(sae, held.tokens[: settings.evaluation_tokens])
        state.early_stop = state.early_stop.after(found.fvu)
        patience, stop = settings.patience, state.early_stop
        if stop.end is None and patience is not None and stop.n_since_best >= patience:
            state.early_stop = replace(stop, end=plan.end_after_fall(state.step))
        return found


def _moved(rows: Rows, device: torch.device | str) -> Rows:
    """Return the rows on ``device``; a GPU fetches them while the host goes on."""
    if torch.device(device).type == "cuda" and not rows.is_cuda:
        return rows.pin_memory().to(device, non_blocking=True)
    return rows.to(device)


def _first_state(
    source: TokenSource,
    plan: TrainingPlan,
    checkpoint: Path | None,
    ranks: Ranks,
    device: torch.device | str,
) -> tuple[TrainingState, Normalisation]:
    """Return the state of an earlier process, or that before the first step."""
    found = (
        None
        if checkpoint is None
        else load_checkpoint(checkpoint, plan.key, device, plan.settings.step)
    )
    _require_same_start(0 if found is None else found[0].step, ranks)
    if found is not None:
        return found
    sample = source.sample(plan.settings.statistics_tokens).to(device)
    normalisation = fit_normalisation(sample)
    parameters = started_parameters(plan, normalisation.apply(sample[:START_TOKENS]))
    return new_state(parameters, plan.settings.step), normalisation


def _require_same_start(step: int, ranks: Ranks) -> None:
    steps: list[int] = ranks.all_gather(torch.tensor([step])).tolist()
    if len(set(steps)) > 1:
        raise DistributedError(
            f"the ranks resume from different steps ({steps}); let all of them read the same "
            "checkpoint file, on a shared file system, or remove it"
        )


def _pass_over(source: TokenSource, learners: Sequence[_Learner], held: HeldOut) -> float:
    """Take every step that is left; return tokens per second."""
    unfinished = [one.state.step for one in learners if not one.done]
    if not unfinished:
        return math.nan
    plan, start = learners[0].plan, min(unfinished)
    buffers: Buffers = {}
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
    more = f" and {len(named) - _NAMED_IMAGES} more" if len(named) > _NAMED_IMAGES else ""
    return SaeError(
        f"{error} (batch {batch} of epoch {epoch}, images {', '.join(named[:_NAMED_IMAGES])}{more})"
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


def _show(progress: Tracker, plan: TrainingPlan, learners: Sequence[_Learner]) -> None:
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
