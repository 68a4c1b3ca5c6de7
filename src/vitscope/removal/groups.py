"""A group of features as a mask over the dictionary, however it was given."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitscope.axes import Bool
from vitscope.errors import SaeError

Group = Tensor | NDArray[np.int64] | NDArray[np.bool_] | Sequence[int]
"""Feature indices in any order, or one boolean per feature."""


def group_mask(group: Group, n_features: int) -> Bool[Tensor, "m"]:
    """Return which of ``n_features`` belong to ``group``; a feature named twice counts once.

    Raises:
        SaeError: an index is no feature, a mask has another length, or neither was given.
    """
    given = (
        group.detach().cpu() if isinstance(group, Tensor) else torch.as_tensor(np.asarray(group))
    )
    if given.dtype == torch.bool:
        if tuple(given.shape) != (n_features,):
            raise SaeError(
                f"the group is a mask of shape {list(given.shape)}; the SAE has {n_features} "
                "features: give one boolean for each, or the features' indices"
            )
        return given
    if given.numel() and (given.is_floating_point() or given.ndim != 1):
        raise SaeError(
            f"the group has type {given.dtype} and shape {list(given.shape)}; give feature "
            "indices [n], or one boolean per feature"
        )
    mask = torch.zeros(n_features, dtype=torch.bool)
    indices = given.long().flatten()
    wrong = indices[(indices < 0) | (indices >= n_features)]
    if wrong.numel():
        raise SaeError(
            f"the group names feature {int(wrong[0])}; the SAE's features are 0 to "
            f"{n_features - 1}: take the group from this SAE's own partition"
        )
    mask[indices] = True
    return mask
