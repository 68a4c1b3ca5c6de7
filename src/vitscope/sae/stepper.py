"""Who takes the steps of a training: public torch operations, or kernels of our own on a GPU."""

import warnings
from typing import Protocol

import torch

from vitscope.axes import Rows
from vitscope.distributed import Ranks
from vitscope.sae.kept_activations import KeptActivations
from vitscope.sae.methods import one_threshold
from vitscope.sae.plan import TrainingPlan
from vitscope.sae.precision import DTYPES, has_kernels, lacks_triton
from vitscope.sae.state import TrainingState
from vitscope.sae.step import take_step


class Buffers:
    """Buffers of pre-activations, one for each dictionary size; SAEs of one pass share them."""

    def __init__(self) -> None:
        self._of_size: dict[tuple[int, int], KeptActivations] = {}

    def of(self, n_rows: int, n_features: int, device: torch.device) -> KeptActivations:
        """Return the buffer for a batch's rows, made at the first call."""
        size = (n_rows, n_features)
        if size not in self._of_size:
            like = torch.empty(0, device=device)
            self._of_size[size] = KeptActivations(n_rows, n_features, like)
        return self._of_size[size]


class Stepper(Protocol):
    """Moves a training's state."""

    def take(self, x: Rows, learning_rate: float, buffers: Buffers) -> None:
        """Take one step on this rank's normalised rows.

        Raises:
            BadStepError: the step cannot be taken, where that is known at once.
        """
        ...

    def read(self) -> None:
        """Bring the state's figures and its running θ up to date.

        Raises:
            BadStepError: a step since the last call could not be taken; the state is at the step
                before.
        """
        ...


class TorchStepper:
    """By :func:`~vitscope.sae.step.take_step`, which has every method and any number of ranks."""

    def __init__(self, state: TrainingState, plan: TrainingPlan, ranks: Ranks) -> None:
        self._state, self._plan, self._ranks = state, plan, ranks
        self._guess = 0.0

    def take(self, x: Rows, learning_rate: float, buffers: Buffers) -> None:
        """Take one step; its figures are there when it returns."""
        state, plan = self._state, self._plan
        kept = buffers.of(x.shape[0], plan.n_features, x.device)
        kept.guess = self._guess
        take_step(state, x, plan, learning_rate, kept, self._ranks)
        self._guess = kept.guess
        if one_threshold(plan.objective.method):
            state.watch = state.watch.after_batch(kept.guess)

    def read(self) -> None:
        """Do nothing: everything is up to date."""


def stepper_for(state: TrainingState, plan: TrainingPlan, ranks: Ranks) -> Stepper:
    """Return the fastest there is for a training's method, device and ranks."""
    device = state.parameters.b_dec.device
    if lacks_triton(plan.settings, device, ranks):
        warnings.warn(
            "Triton is not installed: every training step will wait for the GPU many times; "
            "`pip install triton` where there is a build for this system",
            stacklevel=2,
        )
    if not has_kernels(plan.settings, device, ranks):
        return TorchStepper(state, plan, ranks)
    from vitscope.sae.kernels.device_stepper import DeviceStepper  # noqa: PLC0415  needs Triton

    return DeviceStepper(state, plan, DTYPES[plan.matmul_dtype])
