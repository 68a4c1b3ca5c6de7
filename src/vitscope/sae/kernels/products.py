"""Products of matrices, rounded to bf16 or not, accumulated and returned in float32."""

import torch
from torch import Tensor

from vitscope.axes import Float


def product(
    a: Float[Tensor, "n d"], b: Float[Tensor, "d k"], dtype: torch.dtype
) -> Float[Tensor, "n k"]:
    """Return ``a @ b`` in float32, both rounded to ``dtype`` before."""
    a, b = a.to(dtype), b.to(dtype)
    if dtype == torch.float32:
        return a @ b
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()  # bf16 numbers multiply exactly in float32
