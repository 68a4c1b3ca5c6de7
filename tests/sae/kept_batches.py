"""Pre-activations given outright, in the buffer that training keeps them in."""

import torch
from torch import Tensor

from vitscope.sae.selection import PreActivationBuffer


def fill(kept: PreActivationBuffer, pre: Tensor, b_enc: Tensor | None = None) -> None:
    """Make the buffer hold ``pre`` ``[B, m]``, finite, plus the bias: inputs are unit vectors."""
    bias = pre.new_zeros(pre.shape[1]) if b_enc is None else b_enc
    kept.encode(torch.eye(pre.shape[0], dtype=pre.dtype), pre.T.contiguous(), bias)


def kept_batch(pre: Tensor, b_enc: Tensor | None = None) -> PreActivationBuffer:
    """A buffer of its own, filled."""
    kept = PreActivationBuffer(*pre.shape, like=pre)
    fill(kept, pre, b_enc)
    return kept
