"""Attention as written down, behind the interface that every backbone's attention has."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy.typing import NDArray
from torch import Tensor

from vitscope.backbones.attention import BlockAttention

PREFIX = 2


@dataclass(frozen=True)
class Written(BlockAttention):
    """Rows of V views, [V, A, T, T]; ``asked`` notes how many each call wanted."""

    weights: Tensor
    asked: list[int] = field(default_factory=list[int])

    @property
    def n_prefix(self) -> int:
        return PREFIX

    @property
    def n_tokens(self) -> int:
        return self.weights.shape[-1]

    def rows(self, queries: Int64[Tensor, "Q"]) -> Float32[Tensor, "B A Q T"]:
        self.asked.append(len(queries))
        return self.weights[:, :, queries]


def written(*views: NDArray[np.float64]) -> Written:
    """Take probabilities of patches over patches, [A, P, P] a view; prefix tokens hold rubbish."""
    heads, n = views[0].shape[:2]
    whole = np.full((len(views), heads, n + PREFIX, n + PREFIX), 0.7)
    for view, patches in zip(whole, views, strict=True):
        view[:, PREFIX:, PREFIX:] = patches
    return Written(torch.from_numpy(whole).float())
