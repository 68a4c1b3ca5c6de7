"""Adam under the constraint that decoder rows have norm 1, a block of dictionary rows at a time."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adam import adam

from vitscope.axes import Float
from vitscope.sae.objective import Gradients
from vitscope.sae.parameters import Parameters

BETAS = (0.9, 0.999)

EPSILON = 1e-10
"""Added to Adam's denominator. The loss is a mean over B·d, so gradients are near 1e-6 an element
and a rare feature's second moment far smaller: torch's 1e-8 would damp exactly those."""

THETA_RATE = 10.0
"""Adam's rate of log θ over that of the weights. An encoder entry is near 1/√d, so a step changes a
row, and with it all its activations, by about rate·√d of itself: θ has to keep up."""

ROWS_AT_ONCE = 512
"""Dictionary rows updated at a time: their gradients stay in the cache, and the calls are few."""

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, eq=False)
class _Part:
    """A parameter, or some rows of it, with its moments: views that change in place."""

    parameter: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor

    def split(self, rows_at_once: int) -> list["_Part"]:
        views = (t.split(rows_at_once) for t in (self.parameter, self.exp_avg, self.exp_avg_sq))
        return [_Part(*view) for view in zip(*views, strict=True)]


def bias_corrections(step: int) -> tuple[float, float]:
    """Return what step ``step``, from 1, divides the first moment and the second's root by."""
    return 1 - BETAS[0] ** step, (1 - BETAS[1] ** step) ** 0.5


class UnitDecoderAdam:
    """Fused Adam on ``parameters``, in place; decoder rows stay unit.

    The part of a decoder row's gradient that is parallel to the row would only change its norm,
    so it is projected out before the step; the norm is restored after it. All of that happens to
    one block of rows before the next is touched: no result depends on another block's.

    Every row is updated in every step, as Adam is defined: moments decay where a feature is silent.
    """

    def __init__(self, parameters: Parameters, rows_at_once: int = ROWS_AT_ONCE) -> None:
        self._parts = {
            name: _Part(tensor, torch.zeros_like(tensor), torch.zeros_like(tensor))
            for name, tensor in parameters.named().items()
        }
        per_feature = (
            self._parts[name].split(rows_at_once) for name in ("w_enc", "b_enc", "w_dec")
        )
        self._blocks = list(zip(*per_feature, strict=True))
        self._steps = 0

    def step(self, gradients: Gradients, learning_rate: float) -> None:
        """Take one step."""
        of_b_dec, start = gradients.output.clone(), 0
        for w_enc, b_enc, w_dec in self._blocks:
            rows = w_dec.parameter
            of_rows = gradients.rows.block(start, start + rows.shape[0], rows)
            of_b_dec.addmv_(w_enc.parameter.T, of_rows.b_enc, alpha=-1)  # before these rows move
            of_rows.w_dec.addcmul_(of_rows.radial[:, None], rows, value=-1)
            of_parts = [of_rows.w_enc, of_rows.b_enc, of_rows.w_dec]
            self._adam([w_enc, b_enc, w_dec], of_parts, learning_rate)
            rows.div_(torch.linalg.vector_norm(rows, dim=1, keepdim=True))
            start += rows.shape[0]
        self._adam([self._parts["b_dec"]], [of_b_dec], learning_rate)
        if gradients.log_threshold is not None:
            self._step_of_thresholds(gradients.log_threshold, THETA_RATE * learning_rate)
        self._steps += 1

    def _step_of_thresholds(self, of_log: Tensor, rate: float) -> None:
        part = self._parts["log_threshold"]
        self._adam([part], [of_log], rate)
        # no activation near θ: nothing pulls at it, and it falls until something does
        part.parameter.sub_((of_log == 0) * rate)

    def _adam(self, parts: list[_Part], gradients: list[Tensor], learning_rate: float) -> None:
        adam(
            [part.parameter for part in parts],
            gradients,
            [part.exp_avg for part in parts],
            [part.exp_avg_sq for part in parts],
            [],
            # the fused kernel counts these up; they are copies, since a step has many blocks
            [self._step_count(gradient) for gradient in gradients],
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=learning_rate,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )

    def _step_count(self, like: Tensor) -> Float[Tensor, ""]:
        return torch.tensor(float(self._steps), device=like.device)

    def count(self, steps: int) -> None:
        """Take note that ``steps`` were done in all, by whoever changed these tensors."""
        self._steps = steps

    def state_tensors(self) -> dict[str, Tensor]:
        """Return both moments of every parameter by name, for a checkpoint."""
        return {
            f"adam.{name}.{moment}": getattr(part, moment)
            for name, part in self._parts.items()
            for moment in MOMENTS
        }

    def load_state_tensors(self, tensors: dict[str, Tensor], step: int) -> None:
        """Restore what :meth:`state_tensors` returned after ``step`` steps."""
        for name, tensor in self.state_tensors().items():
            tensor.copy_(tensors[name])
        self._steps = step
