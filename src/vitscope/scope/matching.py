"""Which feature of one dictionary is which of another: mutual nearest decoder directions."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROWS_AT_ONCE = 2048

LEAST_COSINE = 0.7
"""Below it, two features are not called the same."""


@dataclass(frozen=True)
class Matches:
    """Pairs of features, one of each dictionary, ascending in the first.

    Attributes:
        one: feature of the first dictionary, [n].
        other: its match in the second, [n].
        cosine: of their decoder rows, [n].
    """

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    cosine: NDArray[np.float64]


def match_features(one: Tensor, other: Tensor, *, least: float = LEAST_COSINE) -> Matches:
    """Match decoders [m, d] and [n, d] with unit rows: each feature is the other's nearest.

    An assignment of all features at once (Hungarian) takes hours at 24,576; where a feature has a
    counterpart at all, the two are each other's nearest.

    Args:
        one: decoder of the first.
        other: decoder of the second.
        least: cosine from which two features count as the same.
    """
    forward, backward = _nearest(one, other), _nearest(other, one)
    rows = torch.arange(len(one))
    mutual = backward[forward] == rows
    a, b = rows[mutual], forward[mutual]
    cosine = (one[a].double() * other[b].double()).sum(1)
    kept = cosine >= least
    return Matches(a[kept].numpy(), b[kept].numpy(), cosine[kept].numpy())


def _nearest(one: Tensor, other: Tensor) -> Tensor:
    """Return the row of ``other`` with the largest cosine for every row of ``one``."""
    return torch.cat([(part @ other.T).argmax(1) for part in one.split(ROWS_AT_ONCE)])
