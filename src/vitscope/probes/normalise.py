"""What comes before the linear layer; its learned scaling belongs to the heads."""

import torch
from torch import Tensor

from vitscope.axes import Float
from vitscope.probes.settings import Norm

EPSILON = 1e-5
RUNNING_SHARE = 0.1
"""Both as torch's norms have them by default."""


class Normaliser:
    """Normalises features [V, N, d]; batch norm remembers what it has seen, per variant.

    Attributes:
        kind: none, layer or batch.
        mean: running mean of batch norm, [V, d].
        variance: its running variance, unbiased.
    """

    def __init__(self, kind: Norm, n_variants: int, width: int, device: torch.device) -> None:
        self.kind: Norm = kind
        self.mean = torch.zeros(n_variants, width, device=device)
        self.variance = torch.ones(n_variants, width, device=device)

    def train(self, x: Float[Tensor, "V N d"]) -> Float[Tensor, "V N d"]:
        """Normalise a training batch, batch norm by the batch's own mean and variance."""
        if self.kind != "batch":
            return self.evaluate(x)
        variance, mean = torch.var_mean(x, 1, correction=0)
        unbiased = variance * (x.shape[1] / max(x.shape[1] - 1, 1))
        self.mean.lerp_(mean, RUNNING_SHARE)
        self.variance.lerp_(unbiased, RUNNING_SHARE)
        return _standardised(x, mean, variance)

    def evaluate(self, x: Float[Tensor, "V N d"]) -> Float[Tensor, "V N d"]:
        """Normalise without learning, batch norm by what was seen in training."""
        if self.kind == "none":
            return x
        if self.kind == "layer":
            return torch.nn.functional.layer_norm(x, x.shape[-1:], eps=EPSILON)
        return _standardised(x, self.mean, self.variance)


def _standardised(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return (x - mean.unsqueeze(1)) * (variance + EPSILON).rsqrt().unsqueeze(1)
