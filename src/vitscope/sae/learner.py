"""One SAE in training: its state, its log, its checkpoint. Whoever has batches calls it."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from vitscope.axes import Rows
from vitscope.backbones.backbone import Site
from vitscope.distributed import DistributedError, Ranks, share
from vitscope.sae.checkpoint import load_checkpoint, save_checkpoint
from vitscope.sae.finish import finished_sae, sae_at
from vitscope.sae.metrics_log import MetricsLog
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.normalisation import Normalisation, fit_normalisation
from vitscope.sae.plan import TrainingPlan
from vitscope.sae.schedule import end_after_fall, learning_rate
from vitscope.sae.source import TokenSource
from vitscope.sae.start import TOKENS, started
from vitscope.sae.state import TrainingState, new_state
from vitscope.sae.step import require_finite
from vitscope.sae.stepper import Buffers, stepper_for
from vitscope.sae.watch import HeldOutFigures, look
from vitscope.tokens.sampling import HeldOut


@dataclass(frozen=True)
class Keeping:
    """Where a training's state and figures go; None keeps nothing.

    Attributes:
        checkpoint: state, every ``checkpoint_every`` steps and after the last.
        log: a JSON-lines file of figures per step; the trackers' files go beside it.
    """

    checkpoint: Path | None = None
    log: Path | None = None


NOWHERE = Keeping()


class Learner(AbstractContextManager["Learner"]):
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
        keeping: Keeping,
        ranks: Ranks,
        device: torch.device | str,
    ) -> None:
        self.plan, self._keeping, self._ranks, self._device = plan, keeping, ranks, device
        self.state, self.normalisation = _start(source, plan, keeping.checkpoint, ranks, device)
        self.resumed_from = self.state.step
        self._mine = share(plan.batch, ranks)
        self._stepper = stepper_for(self.state, plan, ranks)
        writes = ranks.rank == 0
        self._checkpoint = keeping.checkpoint if writes else None
        log = keeping.log if writes else None
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
        return self.state.watch.end or self.plan.n_steps

    @property
    def done(self) -> bool:
        """Whether the last step was taken."""
        return self.state.step >= self.end

    def learn(self, raw: Rows, buffers: Buffers, held: HeldOut) -> None:
        """Take one step on the raw rows of a global batch, look, log and save where it is time.

        Args:
            raw: the batch ``[B, d]`` of all ranks.
            buffers: for this rank's rows; several learners may share them.
            held: tokens to look at.

        Raises:
            BadStepError: the inputs or the loss are not finite, in this step or, where a device
                is not asked after every step, in one since it last was.
        """
        plan, state, settings = self.plan, self.state, self.plan.settings
        rate = learning_rate(settings, state.step, plan.n_steps, state.watch.end)
        x = self.normalisation.apply(_moved(raw[self._mine], self._device))
        self._stepper.take(x, rate, buffers)
        if any(map(self._is_time, (
            settings.evaluate_every, settings.log_every, settings.checkpoint_every
        ))):  # fmt: skip
            self._stepper.read()
        found = self._look(held) if self._is_time(settings.evaluate_every) else None
        if found is not None or self._is_time(settings.log_every):
            assert state.figures is not None
            self._lines.write(state.figures, rate, found, state.watch.threshold)
        if self._is_time(settings.checkpoint_every):
            require_finite(state)
            if self._checkpoint is not None:
                save_checkpoint(self._checkpoint, state, self.normalisation, plan.key)

    def finished(self, held: HeldOut, site: Site | None) -> SparseAutoencoder:
        """Return the SAE on raw activations, θ fitted on ``held``."""
        return finished_sae(held, self.plan, self.state, self.normalisation, site)

    def _is_time(self, every: int) -> bool:
        return self.done or (every > 0 and self.state.step % every == 0)

    def _look(self, held: HeldOut) -> HeldOutFigures:
        state, settings = self.state, self.plan.settings
        theta = state.watch.threshold or 0.0
        sae = sae_at(state.parameters, self.normalisation, self.plan, theta)
        found = look(sae, held.tokens[: settings.evaluation_tokens])
        state.watch = state.watch.after_look(found.fvu)
        stale = settings.patience is not None and state.watch.looks_since >= settings.patience
        if stale and state.watch.end is None:
            end = end_after_fall(settings, state.step, self.plan.n_steps)
            state.watch = replace(state.watch, end=end)
        return found


def _moved(rows: Rows, device: torch.device | str) -> Rows:
    """Return the rows on ``device``; a GPU fetches them while the host goes on."""
    if torch.device(device).type == "cuda" and not rows.is_cuda:
        return rows.pin_memory().to(device, non_blocking=True)
    return rows.to(device)


def _start(
    source: TokenSource,
    plan: TrainingPlan,
    checkpoint: Path | None,
    ranks: Ranks,
    device: torch.device | str,
) -> tuple[TrainingState, Normalisation]:
    """Return the state of an earlier process, or that before the first step."""
    found = None if checkpoint is None else load_checkpoint(checkpoint, plan.key, device)
    _require_same_start(0 if found is None else found[0].step, ranks)
    if found is not None:
        return found
    sample = source.sample(plan.settings.statistics_tokens).to(device)
    normalisation = fit_normalisation(sample)
    return new_state(started(plan, normalisation.apply(sample[:TOKENS]))), normalisation


def _require_same_start(step: int, ranks: Ranks) -> None:
    steps: list[int] = ranks.gather(torch.tensor([step])).tolist()
    if len(set(steps)) > 1:
        raise DistributedError(
            f"the ranks resume from different steps ({steps}); let all of them read the same "
            "checkpoint file, on a shared file system, or remove it"
        )
