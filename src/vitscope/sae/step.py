"""The state of a training, its checkpoint, and one optimiser step, guarded against divergence.

θ is fitted after the last step and from the weights alone; the state holds a running θ under which
held-out tokens are evaluated meanwhile.
"""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vitscope.axes import Int64, Rows
from vitscope.distributed import ALONE, Ranks
from vitscope.errors import ArtifactError, SaeError
from vitscope.sae.code import sum_of_squares
from vitscope.sae.objective import evaluate
from vitscope.sae.optimiser import UnitDecoderAdam
from vitscope.sae.parameters import Normalisation, Parameters
from vitscope.sae.plan import TrainingPlan
from vitscope.sae.selection import PreActivationBuffer
from vitscope.sae.threshold import running_threshold
from vitscope.store.tensors import load_tensors, save_tensors

CHECKPOINT_SCHEMA = 5
"""Bumped when the content of a checkpoint, or what a step does with it, changes."""


class BadStepError(SaeError):
    """A step that cannot be taken.

    Attributes:
        step: from 1.
        rows: rows of the global batch that are to blame; empty where it is the batch as a whole.
    """

    def __init__(self, message: str, step: int, rows: list[int] | None = None) -> None:
        super().__init__(message)
        self.step, self.rows = step, rows or []


@dataclass(frozen=True)
class StepFigures:
    """What the log says of one step.

    Attributes:
        step: from 1.
        loss: reconstruction loss of the batch.
        auxiliary: auxiliary loss of the batch, before its coefficient.
        fvu: of the batch, about the data set's mean.
        l0: kept entries per token.
        dead_share: share of the features that have been silent for too long.
    """

    step: int
    loss: float
    auxiliary: float
    fvu: float
    l0: float
    dead_share: float


@dataclass(frozen=True)
class EarlyStop:
    """How evaluations on held-out tokens went.

    Attributes:
        best: lowest held-out FVU so far; None before the first evaluation.
        n_since_best: evaluations since then.
        end: the step after which training ends, if that was brought forward.
    """

    best: float | None = None
    n_since_best: int = 0
    end: int | None = None

    def after(self, fvu: float) -> "EarlyStop":
        """Return what is known after one more evaluation."""
        if self.best is None or fvu < self.best:
            return EarlyStop(fvu, 0, self.end)
        return EarlyStop(self.best, self.n_since_best + 1, self.end)


@dataclass(eq=False)
class TrainingState:
    """Everything that changes from step to step of a training.

    Attributes:
        parameters: the SAE in training, on normalised inputs.
        optimiser: changes them in place.
        silent_tokens: tokens since each feature was last kept.
        step: steps done; with the batches per epoch, this is the place in the data too.
        figures: of the last step; None before the first.
        threshold: running θ, on normalised inputs; None before the first batch, or if the method
            has no such θ.
        early_stop: how held-out figures went.
        cut: of the last batch, a guess for the next. No result depends on it: it is not saved.
    """

    parameters: Parameters
    optimiser: UnitDecoderAdam
    silent_tokens: Int64[Tensor, "m"]
    step: int = 0
    figures: StepFigures | None = None
    threshold: float | None = None
    early_stop: EarlyStop = field(default_factory=EarlyStop)
    cut: float = 0.0


def new_state(parameters: Parameters, step: Literal["torch", "triton"] = "torch") -> TrainingState:
    """Return the state before the first step, for steps that ``step`` computes."""
    n_features, device = parameters.w_dec.shape[0], parameters.w_dec.device
    if step == "triton":
        from vitscope.sae.triton_kernels import FusedRowUpdate  # noqa: PLC0415  needs Triton

        optimiser = UnitDecoderAdam(parameters, row_update=FusedRowUpdate())
    else:
        optimiser = UnitDecoderAdam(parameters)
    silent_tokens = torch.zeros(n_features, dtype=torch.int64, device=device)
    return TrainingState(parameters, optimiser, silent_tokens)


def save_checkpoint(
    path: Path, state: TrainingState, normalisation: Normalisation, fingerprint: str
) -> None:
    """Write everything that the next step depends on to ``path``, atomically."""
    tensors = {
        **state.parameters.named(),
        **state.optimiser.state_tensors(),
        "silent_tokens": state.silent_tokens,
        "mean": normalisation.mean,
        "scale": torch.tensor(normalisation.scale, dtype=torch.float64),
    }
    metadata = {
        "schema": str(CHECKPOINT_SCHEMA),
        "fingerprint": fingerprint,
        "step": str(state.step),
        "threshold": json.dumps(state.threshold),
        "early_stop": json.dumps(asdict(state.early_stop)),
        "figures": json.dumps(None if state.figures is None else asdict(state.figures)),
    }
    save_tensors(path, tensors, metadata)


def load_checkpoint(
    path: Path,
    fingerprint: str,
    device: torch.device | str,
    step: Literal["torch", "triton"] = "torch",
) -> tuple[TrainingState, Normalisation] | None:
    """Return the state saved at ``path``, for steps that ``step`` computes.

    None where there is no checkpoint, where it is damaged, or where it belongs to another
    training: the training then starts anew.
    """
    try:
        tensors, metadata = load_tensors(path)
    except ArtifactError:
        return None
    wanted = (str(CHECKPOINT_SCHEMA), fingerprint)
    if (metadata.get("schema"), metadata.get("fingerprint")) != wanted:
        return None
    # cloned, because tensors mapped from a file may be unaligned, and alignment decides the order
    # in which vector instructions add: the last bit of every later step
    tensors = {name: tensor.clone().to(device) for name, tensor in tensors.items()}
    names = {field.name for field in fields(Parameters)} & tensors.keys()
    state = new_state(Parameters(**{name: tensors[name] for name in names}), step)
    state.step = int(metadata["step"])
    state.optimiser.load_state_tensors(tensors, state.step)
    state.silent_tokens = tensors["silent_tokens"]
    state.threshold = json.loads(metadata["threshold"])
    state.early_stop = EarlyStop(**json.loads(metadata["early_stop"]))
    figures = json.loads(metadata["figures"])
    state.figures = None if figures is None else StepFigures(**figures)
    return state, Normalisation(tensors["mean"], float(tensors["scale"]))


def take_step(
    state: TrainingState,
    x: Rows,
    plan: TrainingPlan,
    learning_rate: float,
    buffer: PreActivationBuffer | None = None,
    ranks: Ranks = ALONE,
) -> StepFigures:
    """Move ``state`` by one step on normalised inputs and return its figures.

    Args:
        state: the same on every rank, before and after.
        x: this rank's rows ``[B, d]`` of the batch.
        plan: of the training.
        learning_rate: of this step.
        buffer: where pre-activations are written, so that no step allocates them anew.
        ranks: who holds the batch's other rows.

    Raises:
        BadStepError: inputs or loss are not finite; ``state`` is then at the step before.
    """
    number = state.step + 1
    _require_finite_rows(x, number, ranks)
    if buffer is None:
        buffer = new_buffer(plan, x)
    buffer.guess = state.cut
    dead = state.silent_tokens >= plan.dead_after
    objective = plan.objective.at(number / plan.n_steps)
    try:
        found = evaluate(state.parameters, x, objective, dead=dead, buffer=buffer, ranks=ranks)
    except FloatingPointError as error:
        raise _diverged(number, str(error)) from error
    loss, auxiliary = float(found.loss), float(found.auxiliary)
    if not (math.isfinite(loss) and math.isfinite(auxiliary)):
        raise _diverged(number, f"the loss is {loss}, the auxiliary loss {auxiliary}")
    state.silent_tokens += found.n_rows
    state.silent_tokens[found.fired] = 0
    state.optimiser.step(found.gradients, learning_rate)
    state.step = number
    state.figures = StepFigures(
        step=number,
        loss=loss,
        auxiliary=auxiliary,
        fvu=float(found.fvu),
        l0=found.l0,
        dead_share=float((state.silent_tokens >= plan.dead_after).double().mean()),
    )
    if objective.has_one_threshold:
        state.cut = buffer.guess
        state.threshold = running_threshold(state.threshold, state.cut)
    return state.figures


def new_buffer(plan: TrainingPlan, x: Rows) -> PreActivationBuffer:
    """Return a buffer for the pre-activations of ``x`` ``[B, d]`` and of batches of its size."""
    rounded_to = torch.bfloat16 if plan.matmul_dtype == "bfloat16" else None
    return PreActivationBuffer(x.shape[0], plan.n_features, x.new_empty(0), rounded_to)


def require_finite_weights(state: TrainingState) -> None:
    """Refuse to go on, or to save, with weights that are not finite.

    Raises:
        BadStepError: naming the step.
    """
    if not state.parameters.finite():
        raise _diverged(state.step, "the weights contain NaN or infinity")


def _diverged(step: int, what: str) -> BadStepError:
    return BadStepError(f"training diverged at step {step}: {what}; lower learning_rate", step)


def _require_finite_rows(x: Rows, step: int, ranks: Ranks) -> None:
    """Refuse a batch with NaN or infinity, naming its rows; every rank raises the same."""
    # one fast pass, which only non-finite or absurdly large inputs fail; then the exact one
    suspect = ~sum_of_squares(x).isfinite()
    if not int(ranks.sum(suspect.long())):
        return
    rows: list[int] = ranks.all_gather((~x.isfinite()).any(1).long()).nonzero().squeeze(1).tolist()
    if rows:
        message = (
            f"step {step}: the activations contain NaN or infinity; extract them again in fp32"
        )
        raise BadStepError(message, step, rows)
