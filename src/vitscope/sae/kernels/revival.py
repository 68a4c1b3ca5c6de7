"""The auxiliary loss without the host: the device tells which of a few known features are dead.

Which features are dead decides the shapes, and shapes are the host's. So it looks now and then, for
all features that *can* be dead before it looks again: silence grows by a batch a step at most.
Those that are not dead, or no longer, take part with codes of zero: nothing is approximated.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitscope.axes import Float, Int64, Rows
from vitscope.sae.auxiliary import dead_code
from vitscope.sae.kernels.products import product
from vitscope.sae.parameters import Parameters
from vitscope.sae.plan import TrainingPlan
from vitscope.sae.state import TrainingState

HORIZON = 16
"""Steps for which one look at the silence holds. It costs one wait of the host for the device."""


@dataclass(frozen=True, eq=False)
class Revived:
    """The auxiliary loss of a batch, and gradients of coefficient · loss for some features.

    Attributes:
        loss: before its coefficient; 0 where no feature is dead.
        slots: ``[m]``, int32: row of each feature in what follows; -1 has none.
        of_enc: of encoder rows.
        of_dec: of decoder rows.
        of_bias: of encoder biases.
        radial: inner products of decoder rows with ``of_dec``.
    """

    loss: Float[Tensor, ""]
    slots: Tensor
    of_enc: Float[Tensor, "n d"]
    of_dec: Float[Tensor, "n d"]
    of_bias: Float[Tensor, "n"]
    radial: Float[Tensor, "n"]


class Revival:
    """Knows which features can be dead.

    Args:
        plan: of the training.
        n_features: m.
        device: of the state.
        dtype: what products are rounded to.
    """

    def __init__(
        self, plan: TrainingPlan, n_features: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._plan, self._dtype = plan, dtype
        self._features = torch.empty(0, dtype=torch.int64, device=device)
        self._slots = torch.full((n_features,), -1, dtype=torch.int32, device=device)
        self._looked_at: int | None = None

    def look(self, state: TrainingState) -> None:
        """Find the features that can be dead in the next steps, where it is time to."""
        plan, step = self._plan, state.step
        silence_until = HORIZON * plan.batch
        if (
            plan.objective.aux_coefficient <= 0
            or step * plan.batch + silence_until < plan.dead_after
        ):
            return  # none can have been silent for so long: no need to ask
        if self._looked_at is not None and step < self._looked_at + HORIZON:
            return
        can_be_dead = state.silent_tokens + silence_until >= plan.dead_after
        self._features = can_be_dead.nonzero().squeeze(1)
        self._slots.fill_(-1)
        number = torch.arange(self._features.numel(), dtype=torch.int32, device=self._slots.device)
        self._slots[self._features] = number
        self._looked_at = step

    def term(
        self,
        parameters: Parameters,
        products: Float[Tensor, "m B"],
        error: Rows,
        centred: Rows,
        silent_tokens: Int64[Tensor, "m"],
    ) -> Revived | None:
        """Return what :func:`vitscope.sae.auxiliary.auxiliary_term` does, None if none can be dead.

        Args:
            parameters: the SAE in training.
            products: pre-activations without the bias.
            error: x̂ − x.
            centred: what the encoder was multiplied with.
            silent_tokens: before this step.
        """
        features, objective = self._features, self._plan.objective
        if not features.numel():
            return None
        dead = silent_tokens[features] >= self._plan.dead_after
        pre = products.index_select(0, features) + parameters.b_enc[features, None]
        codes = dead_code(torch.where(dead[:, None], pre, 0.0), objective.aux_k)
        rows = parameters.w_dec[features]
        variance = (error - error.mean(0)).square().sum()
        variance = variance.clamp_min(torch.finfo(variance.dtype).tiny)
        miss = product(codes, rows, self._dtype) + error
        of_output = miss * (2 * objective.aux_coefficient / variance)
        of_values = product(of_output, rows.T, self._dtype).mul_(codes > 0)
        return Revived(
            loss=torch.where(dead.any(), miss.square().sum() / variance, 0.0),
            slots=self._slots,
            of_enc=product(of_values.T, centred, self._dtype),
            of_dec=product(codes.T, of_output, self._dtype),
            of_bias=of_values.sum(0),
            radial=(of_values * codes).sum(0),
        )
