"""One optimiser step, guarded against divergence."""

import math

from vitscope.axes import Rows
from vitscope.distributed import ALONE, Ranks
from vitscope.errors import SaeError
from vitscope.sae.kept_activations import KeptActivations
from vitscope.sae.losses import sum_of_squares
from vitscope.sae.objective import evaluate
from vitscope.sae.plan import TrainingPlan, objective_at
from vitscope.sae.state import StepFigures, TrainingState


class BadStepError(SaeError):
    """A step that cannot be taken.

    Attributes:
        step: from 1.
        rows: rows of the global batch that are to blame; empty where it is the batch as a whole.
    """

    def __init__(self, message: str, step: int, rows: list[int] | None = None) -> None:
        super().__init__(message)
        self.step, self.rows = step, rows or []


def take_step(
    state: TrainingState,
    x: Rows,
    plan: TrainingPlan,
    learning_rate: float,
    kept: KeptActivations | None = None,
    ranks: Ranks = ALONE,
) -> StepFigures:
    """Move ``state`` by one step on normalised inputs and return its figures.

    Args:
        state: the same on every rank, before and after.
        x: this rank's rows ``[B, d]`` of the batch.
        plan: of the training.
        learning_rate: of this step.
        kept: where pre-activations are written, so that no step allocates them anew.
        ranks: who holds the batch's other rows.

    Raises:
        BadStepError: inputs or loss are not finite; ``state`` is then at the step before.
    """
    number = state.step + 1
    bad = _bad_rows(x, ranks)
    if bad:
        raise unusable_rows(number, bad)
    dead = state.silent_tokens >= plan.dead_after
    try:
        evaluation = evaluate(
            state.parameters, x, objective_at(plan, state.step), dead=dead, kept=kept, ranks=ranks
        )
    except FloatingPointError as error:
        raise diverged(number, str(error)) from error
    loss, auxiliary = float(evaluation.loss), float(evaluation.auxiliary)
    if not (math.isfinite(loss) and math.isfinite(auxiliary)):
        raise diverged(number, f"the loss is {loss}, the auxiliary loss {auxiliary}")
    state.silent_tokens += evaluation.n_rows
    state.silent_tokens[evaluation.fired] = 0
    state.optimiser.step(evaluation.gradients, learning_rate)
    state.step = number
    state.figures = StepFigures(
        step=number,
        loss=loss,
        auxiliary=auxiliary,
        fvu=float(evaluation.fvu),
        l0=evaluation.l0,
        dead_share=float((state.silent_tokens >= plan.dead_after).double().mean()),
    )
    return state.figures


def require_finite(state: TrainingState) -> None:
    """Refuse to go on, or to save, with weights that are not finite.

    Raises:
        BadStepError: naming the step.
    """
    if not state.parameters.finite():
        raise diverged(state.step, "the weights contain NaN or infinity")


def diverged(step: int, what: str) -> BadStepError:
    """Return the error of a training whose numbers left the finite range."""
    return BadStepError(f"training diverged at step {step}: {what}; lower learning_rate", step)


def unusable_rows(step: int, rows: list[int]) -> BadStepError:
    """Return the error of a batch whose ``rows`` are not finite."""
    return BadStepError(
        f"step {step}: the activations contain NaN or infinity; extract them again in fp32",
        step,
        rows,
    )


def _bad_rows(x: Rows, ranks: Ranks) -> list[int]:
    """Rows of the global batch with NaN or infinity; every rank gets the same answer."""
    # one fast pass, which only non-finite or absurdly large inputs fail; then the exact one
    suspect = ~sum_of_squares(x).isfinite()
    if not int(ranks.sum(suspect.long())):
        return []
    bad = (~x.isfinite()).any(1)
    rows: list[int] = ranks.gather(bad.long()).nonzero().squeeze(1).tolist()
    return rows
