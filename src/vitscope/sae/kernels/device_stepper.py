"""Steps queued on the device, and what the host learns of them when it asks."""

from dataclasses import replace

import torch
from torch import Tensor

from vitscope.axes import Rows
from vitscope.sae.kernels.device_step import DeviceStep
from vitscope.sae.kernels.verdict import AUXILIARY, FIRST_BAD, FVU, HAD_NAN, LOSS, N_KEPT, THETA
from vitscope.sae.plan import TrainingPlan
from vitscope.sae.state import StepFigures, TrainingState
from vitscope.sae.step import BadStepError, diverged, unusable_rows


class DeviceStepper:
    """A :class:`~vitscope.sae.stepper.Stepper` that waits for the device only when it is read.

    A step whose numbers are not finite is not taken, nor is any after it: the host hears of it at
    the next :meth:`read`, and the state is then at the step before.

    Args:
        state: on the device, float32.
        plan: of the training.
        dtype: what products are rounded to.
    """

    def __init__(self, state: TrainingState, plan: TrainingPlan, dtype: torch.dtype) -> None:
        self._state, self._plan = state, plan
        self._step = DeviceStep(state, plan, plan.batch, dtype)

    def take(self, x: Rows, learning_rate: float, buffers: object = None) -> None:  # noqa: ARG002
        """Queue one step on normalised rows; the selection has buffers of its own."""
        with torch.cuda.device_of(x):
            self._step.take(x, learning_rate)

    def read(self) -> None:
        """Wait for the device; bring the state's figures and its running θ up to date.

        Raises:
            BadStepError: naming the first step since the last call that could not be taken.
        """
        state, plan = self._state, self._plan
        marks: list[int] = self._step.marks.tolist()
        figures: list[float] = self._step.figures.tolist()
        if marks[FIRST_BAD.value]:
            state.step = marks[FIRST_BAD.value] - 1
            raise self._error(marks, figures)
        dead = state.silent_tokens >= plan.dead_after
        state.figures = StepFigures(
            step=state.step,
            loss=figures[LOSS.value],
            auxiliary=figures[AUXILIARY.value],
            fvu=figures[FVU.value],
            l0=figures[N_KEPT.value] / plan.batch,
            dead_share=float(dead.double().mean()),
        )
        state.watch = replace(state.watch, threshold=figures[THETA.value])
        state.optimiser.count(state.step)

    def _error(self, marks: list[int], figures: list[float]) -> BadStepError:
        number = marks[FIRST_BAD.value]
        bad: Tensor = ~self._step.squared_x.isfinite()
        rows: list[int] = bad.nonzero().squeeze(1).tolist()
        if rows:
            return unusable_rows(number, rows)
        if marks[HAD_NAN.value]:
            return diverged(number, "pre-activations contain NaN")
        loss, auxiliary = figures[LOSS.value], figures[AUXILIARY.value]
        return diverged(number, f"the loss is {loss}, the auxiliary loss {auxiliary}")
