"""Adam under the constraint that decoder rows have norm 1, a block of dictionary rows at a time."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.optim.adam import adam

from vitscope.axes import Float
from vitscope.sae.gradients import Gradients, RowGradients
from vitscope.sae.parameters import Parameters

BETAS = (0.9, 0.999)

ADAM_EPSILON = 1e-10
"""Added to Adam's denominator. The loss is a mean over B·d, so gradients are near 1e-6 an element
and a rare feature's second moment far smaller: torch's 1e-8 would damp exactly those."""

THETA_RATE = 10.0
"""Adam's rate of log θ over that of the weights. An encoder entry is near 1/√d, so a step changes a
row, and with it all its activations, by about rate·√d of itself: θ has to keep up."""

_CPU_ROWS, _GPU_ROWS = 512, 8192
"""Dictionary rows updated at a time: on a CPU their gradients stay in the cache, on a GPU every
block costs launches and waits (not measured)."""


class AdamMoments(NamedTuple):
    """A parameter with its first and second moment, or views of some rows of the three."""

    parameter: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor

    def split(self, rows_at_once: int) -> list["AdamMoments"]:
        """Return views of so many rows at a time."""
        views = (tensor.split(rows_at_once) for tensor in self)
        return [AdamMoments(*part) for part in zip(*views, strict=True)]


class RowUpdate(Protocol):
    """Takes the whole step of the dictionary's rows at once, in place of the loop over blocks."""

    def __call__(
        self,
        rows: RowGradients,
        moments: dict[str, AdamMoments],
        of_b_dec: Float[Tensor, "d"],
        learning_rate: float,
        step: int,
    ) -> None:
        """Take Σ_j ∂b_enc[j] · W_enc[j] from ``of_b_dec``; then move both matrices and ``b_enc``.

        Args:
            rows: gradients.
            moments: by name of the parameter, changed in place.
            of_b_dec: gradient of ``b_dec`` as of the output, changed in place to the whole of it.
            learning_rate: of this step.
            step: its number, from 1.
        """
        ...


class UnitDecoderAdam:
    """Fused Adam on ``parameters``, in place; decoder rows stay unit.

    The part of a decoder row's gradient that is parallel to the row would only change its norm,
    so it is projected out before the step; the norm is restored after it. All of that happens to
    one block of rows before the next is touched: no result depends on another block's.

    Every row is updated in every step, as Adam is defined: moments decay where a feature is silent.

    Attributes:
        steps: steps taken.

    Args:
        parameters: the SAE in training.
        rows_at_once: dictionary rows of a block; None takes what suits the device.
        row_update: takes the rows' step instead; None works by blocks.
    """

    def __init__(
        self,
        parameters: Parameters,
        rows_at_once: int | None = None,
        row_update: RowUpdate | None = None,
    ) -> None:
        self.steps = 0
        self._row_update = row_update
        self._moments = {
            name: AdamMoments(tensor, torch.zeros_like(tensor), torch.zeros_like(tensor))
            for name, tensor in parameters.named().items()
        }
        at_once = rows_at_once or (_CPU_ROWS if parameters.w_enc.is_cpu else _GPU_ROWS)
        per_feature = (self._moments[name].split(at_once) for name in ("w_enc", "b_enc", "w_dec"))
        self._blocks = list(zip(*per_feature, strict=True))

    def step(self, gradients: Gradients, learning_rate: float) -> None:
        """Take one step."""
        of_b_dec = gradients.output.clone()
        if self._row_update is None:
            self._update_by_blocks(gradients.rows, of_b_dec, learning_rate)
        else:
            self._row_update(gradients.rows, self._moments, of_b_dec, learning_rate, self.steps + 1)
        self._adam([self._moments["b_dec"]], [of_b_dec], learning_rate)
        if gradients.log_threshold is not None:
            self._step_thresholds(gradients.log_threshold, THETA_RATE * learning_rate)
        self.steps += 1

    def _update_by_blocks(
        self, rows: RowGradients, of_b_dec: Float[Tensor, "d"], learning_rate: float
    ) -> None:
        # twin: update_rows of triton_kernels.py, in this order of operations
        start = 0
        for w_enc, b_enc, w_dec in self._blocks:
            decoder = w_dec.parameter
            found = rows.block(start, start + decoder.shape[0], decoder)
            of_b_dec.addmv_(w_enc.parameter.T, found.b_enc, alpha=-1)  # before these rows move
            found.w_dec.addcmul_(found.radial[:, None], decoder, value=-1)
            of_parts = [found.w_enc, found.b_enc, found.w_dec]
            self._adam([w_enc, b_enc, w_dec], of_parts, learning_rate)
            decoder.div_(torch.linalg.vector_norm(decoder, dim=1, keepdim=True))
            start += decoder.shape[0]

    def _step_thresholds(self, of_log: Tensor, rate: float) -> None:
        part = self._moments["log_threshold"]
        self._adam([part], [of_log], rate)
        # no activation near θ: nothing pulls at it, and it falls until something does
        part.parameter.sub_((of_log == 0) * rate)

    def _adam(self, parts: list[AdamMoments], gradients: list[Tensor], rate: float) -> None:
        adam(
            [part.parameter for part in parts],
            gradients,
            [part.exp_avg for part in parts],
            [part.exp_avg_sq for part in parts],
            [],
            # the fused kernel counts these up; they are copies, since a step has many blocks
            [torch.tensor(float(self.steps), device=gradient.device) for gradient in gradients],
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=rate,
            weight_decay=0.0,
            eps=ADAM_EPSILON,
            maximize=False,
        )

    def state_tensors(self) -> dict[str, Tensor]:
        """Return both moments of every parameter by name, for a checkpoint."""
        return {
            f"adam.{name}.{moment}": getattr(part, moment)
            for name, part in self._moments.items()
            for moment in ("exp_avg", "exp_avg_sq")
        }

    def load_state_tensors(self, tensors: dict[str, Tensor], steps: int) -> None:
        """Restore what :meth:`state_tensors` returned after so many ``steps``."""
        for name, tensor in self.state_tensors().items():
            tensor.copy_(tensors[name])
        self.steps = steps
