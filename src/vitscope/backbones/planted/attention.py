"""The planted attention: every row written down, so that its Earth Mover's Distance is known."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy.typing import NDArray
from torch import Tensor

from vitscope.backbones.attention import BlockAttention
from vitscope.backbones.planted.spec import HeadSpec, PlantedSpec


@dataclass(frozen=True)
class WrittenAttention(BlockAttention):
    """Probabilities as specified.

    Attributes:
        patches: rows of the patch tokens; CLS is key 0, and its own row, which nothing specifies,
            attends evenly to all.
    """

    patches: Float32[Tensor, "B A P T"]

    @property
    def n_prefix(self) -> int:
        """One CLS token."""
        return 1

    @property
    def n_tokens(self) -> int:
        """CLS and patch tokens, T."""
        return self.patches.shape[-1]

    def rows(self, queries: Int64[Tensor, "Q"]) -> Float32[Tensor, "B A Q T"]:
        """Return the rows asked for."""
        cls = torch.full_like(self.patches[:, :, :1], 1 / self.n_tokens)
        return torch.cat([cls, self.patches], 2)[:, :, queries]


def locked_cell(grid: int) -> int:
    """Return the flat position that ordinary queries attend to whatever its content: the middle."""
    return (grid // 2) * grid + grid // 2


def attention_rows(
    spec: PlantedSpec, head: HeadSpec, outliers: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return one head's probabilities [P, 1 + P] for the outlier mask [P] of a view; CLS is key 0.

    An ordinary patch attends to itself, to CLS, to the outliers and to the locked cell; an outlier
    attends to CLS and evenly to every patch.
    """
    n = spec.n_positions
    rows = np.zeros((n, 1 + n))
    rows[:, 0] = head.cls
    patches = rows[:, 1:]
    patches[np.arange(n), np.arange(n)] = 1 - head.cls - head.outliers - head.locked
    patches[:, outliers] += head.outliers / outliers.sum()
    patches[:, locked_cell(spec.grid)] += head.locked
    patches[outliers] = (1 - head.cls) / n
    return rows
