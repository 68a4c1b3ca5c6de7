"""Normalisation of every token by itself, as some SAEs were trained with: done, and undone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitscope.axes import Float, Rows

LAYER_NORM_EPSILON = 1e-5
"""Added to the deviation, not to the variance, by the libraries that train such SAEs."""


@dataclass(frozen=True)
class LayerNorm:
    """Minus the token's mean, over its deviation (of n − 1) plus ε.

    The way back multiplies by the deviation without ε, as those libraries do.
    """

    epsilon: float = LAYER_NORM_EPSILON

    def statistics(self, x: Rows) -> tuple[Float[Tensor, "N 1"], Float[Tensor, "N 1"]]:
        """Return what was subtracted from each token, and what its codes are multiplied by."""
        return x.mean(-1, keepdim=True), x.std(-1, keepdim=True)

    def apply(self, x: Rows) -> Rows:
        """Return raw tokens ``x`` normalised."""
        shift, scale = self.statistics(x)
        return (x - shift) / (scale + self.epsilon)


@dataclass(frozen=True)
class ConstantNorm:
    """Every token scaled to the norm √d."""

    def statistics(self, x: Rows) -> tuple[Float[Tensor, "N 1"], Float[Tensor, "N 1"]]:
        """Return what was subtracted from each token, and what its codes are multiplied by."""
        scale = x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
        return scale.new_zeros(scale.shape), scale

    def apply(self, x: Rows) -> Rows:
        """Return raw tokens ``x`` normalised."""
        _, scale = self.statistics(x)
        return x / scale.clamp_min(torch.finfo(x.dtype).tiny)  # a token of zeros stays one


TokenNorm = LayerNorm | ConstantNorm
