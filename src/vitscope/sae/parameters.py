"""What training changes: both weight matrices, one row per feature, and both biases."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vitscope.axes import Float
from vitscope.draws import draw_key

SEED_BITS = 63
"""Bits of a draw key that torch's generators take as a seed."""


@dataclass(frozen=True, eq=False)
class Parameters:
    """The trainable tensors; also the shape in which their gradients travel.

    Attributes:
        w_enc: encoder, transposed against :class:`SparseAutoencoder`: a feature is a row in both
            matrices, so that sparse gradients and row blocks are contiguous.
        b_enc: encoder bias.
        w_dec: decoder, unit rows.
        b_dec: decoder bias.
        log_threshold: logarithm of every feature's θ, where the method learns one.
    """

    w_enc: Float[Tensor, "m d"]
    b_enc: Float[Tensor, "m"]
    w_dec: Float[Tensor, "m d"]
    b_dec: Float[Tensor, "d"]
    log_threshold: Float[Tensor, "m"] | None = None

    def named(self) -> dict[str, Tensor]:
        """Return the tensors by name, in a fixed order."""
        learned = {} if self.log_threshold is None else {"log_threshold": self.log_threshold}
        return {
            "w_enc": self.w_enc,
            "b_enc": self.b_enc,
            "w_dec": self.w_dec,
            "b_dec": self.b_dec,
            **learned,
        }

    def finite(self) -> bool:
        """Whether no tensor has NaN or infinity."""
        return all(bool(tensor.isfinite().all()) for tensor in self.named().values())


def initial_parameters(width: int, n_features: int, *, seed: int) -> Parameters:
    """Return random unit decoder rows, the encoder their transpose, and biases of zero.

    ``b_dec`` is zero because the inputs are centred.
    """
    source = torch.Generator().manual_seed(draw_key("sae-init", seed) >> (128 - SEED_BITS))
    w_dec = normalize(torch.randn(n_features, width, generator=source), dim=1)
    return Parameters(
        w_enc=w_dec.clone(),
        b_enc=torch.zeros(n_features),
        w_dec=w_dec,
        b_dec=torch.zeros(width),
    )
