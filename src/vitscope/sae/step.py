"""One optimiser step, guarded against divergence."""

import math

from torch import Tensor

from vitscope.axes import Float, Rows
from vitscope.errors import SaeError
from vitscope.sae.objective import Evaluation, evaluate
from vitscope.sae.plan import TrainingPlan
from vitscope.sae.state import StepFigures, TrainingState


def take_step(
    state: TrainingState,
    x: Rows,
    plan: TrainingPlan,
    learning_rate: float,
    buffer: Float[Tensor, "B m"] | None = None,
) -> StepFigures:
    """Move ``state`` by one step on normalised inputs ``x`` ``[B, d]`` and return its figures.

    Raises:
        SaeError: the inputs or the loss are not finite; ``state`` is then at the step before.
    """
    number = state.step + 1
    if not bool(x.isfinite().all()):
        raise SaeError(
            f"step {number}: the activations contain NaN or infinity; extract them again in fp32"
        )
    dead = state.silent_tokens >= plan.dead_after
    try:
        evaluation = evaluate(state.parameters, x, plan.objective, dead=dead, buffer=buffer)
    except FloatingPointError as error:
        raise diverged(number, str(error)) from error
    loss, auxiliary = float(evaluation.loss), float(evaluation.auxiliary)
    if not (math.isfinite(loss) and math.isfinite(auxiliary)):
        raise diverged(number, f"the loss is {loss}, the auxiliary loss {auxiliary}")
    _count_silence(state, evaluation)
    state.optimiser.step(evaluation.gradients, learning_rate)
    state.step = number
    state.figures = StepFigures(
        step=number,
        loss=loss,
        auxiliary=auxiliary,
        fvu=float(evaluation.fvu),
        l0=evaluation.code.n / x.shape[0],
        dead_share=float((state.silent_tokens >= plan.dead_after).double().mean()),
    )
    return state.figures


def require_finite(state: TrainingState) -> None:
    """Refuse to go on, or to save, with weights that are not finite.

    Raises:
        SaeError: naming the step.
    """
    if not state.parameters.finite():
        raise diverged(state.step, "the weights contain NaN or infinity")


def diverged(step: int, what: str) -> SaeError:
    """Return the error of a training whose numbers left the finite range."""
    return SaeError(f"training diverged at step {step}: {what}; lower learning_rate")


def _count_silence(state: TrainingState, evaluation: Evaluation) -> None:
    state.silent_tokens += evaluation.code.n_rows
    state.silent_tokens[evaluation.code.features] = 0
