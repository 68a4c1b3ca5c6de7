"""Adam under the constraint that decoder rows have norm 1."""

import torch
from torch import Tensor

from vitscope.sae.parameters import Parameters

EPSILON = 1e-10
"""Added to Adam's denominator. The loss is a mean over B·d, so gradients are near 1e-6 an element
and a rare feature's second moment far smaller: torch's 1e-8 would damp exactly those."""

MOMENTS = ("exp_avg", "exp_avg_sq")


class UnitDecoderAdam:
    """Fused Adam on ``parameters``, in place; decoder rows stay unit.

    The part of a decoder row's gradient that is parallel to the row would only change its norm,
    so it is projected out before the step; the norm is restored after it.
    """

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._adam = torch.optim.Adam(
            list(parameters.named().values()), lr=0.0, eps=EPSILON, fused=True
        )

    def step(self, gradients: Parameters, learning_rate: float) -> None:
        """Take one step; ``gradients`` are consumed (the decoder's is projected in place)."""
        w_dec = self._parameters.w_dec
        parallel = (gradients.w_dec * w_dec).sum(dim=1, keepdim=True)
        gradients.w_dec.addcmul_(parallel, w_dec, value=-1)
        for tensor, gradient in zip(
            self._parameters.named().values(), gradients.named().values(), strict=True
        ):
            tensor.grad = gradient
        self._adam.param_groups[0]["lr"] = learning_rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        w_dec.div_(torch.linalg.vector_norm(w_dec, dim=1, keepdim=True))

    def state_tensors(self) -> dict[str, Tensor]:
        """Return both moments of every parameter by name, for a checkpoint; none before a step."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self._parameters.named().items():
            state = self._adam.state.get(parameter, {})
            tensors |= {f"adam.{name}.{moment}": state[moment] for moment in MOMENTS if state}
        return tensors

    def load_state_tensors(self, tensors: dict[str, Tensor], step: int) -> None:
        """Restore what :meth:`state_tensors` returned after ``step`` steps."""
        for name, parameter in self._parameters.named().items():
            state = self._adam.state[parameter]
            # fused Adam keeps its step count as a float32 tensor beside the parameter
            state["step"] = torch.tensor(float(step), device=parameter.device)
            for moment in MOMENTS:
                state[moment] = tensors[f"adam.{name}.{moment}"].to(parameter.device)
