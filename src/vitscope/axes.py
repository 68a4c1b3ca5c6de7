"""The legend of axis letters, used in every shape comment and annotation of the project.

=====  =====================================================================
B      images in a batch
N      rows of anything: tokens, pairs, images of a set
P      patch tokens of one view, ``p * p`` (row-major)
T      all tokens of one view: prefix tokens first, then the P patch tokens
d      width of the residual stream
m      dictionary size: number of SAE features
H, W   rows and columns of a patch grid (or of pixels, where said)
p      grid side in patches; ``n`` patch side in pixels; ``s`` shift in patches
q      side of the overlap of two shifted views, ``q = p - s``
A      attention heads
k      exemplars per feature (k_CDS), or sparsity K where said
=====  =====================================================================
"""

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

Reals = NDArray[np.float64]
"""An array of float64; its shape is said where it stands."""

ImageBatch = UInt8[Tensor, "B 3 H W"]
"""Decoded RGB images, one byte a channel, before the backbone's normalisation."""

PatchTokens = Float[Tensor, "B P d"]
PrefixTokens = Float[Tensor, "B n_prefix d"]
Rows = Float[Tensor, "N d"]
Codes = Float[Tensor, "N m"]
PatchAttention = Float32[Tensor, "B A P T"]
TokenMask = Bool[Tensor, "B P"]

__all__ = [
    "Bool",
    "Codes",
    "Float",
    "Float32",
    "Float64",
    "ImageBatch",
    "Int64",
    "PatchAttention",
    "PatchTokens",
    "PrefixTokens",
    "Reals",
    "Rows",
    "TokenMask",
    "UInt8",
]
