"""Activation per token summed over a group's features, on outlier and on normal tokens."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitscope.removal.groups import Group, group_mask
from vitscope.sae.quality import FeatureActivity


@dataclass(frozen=True)
class GroupActivation:
    """Mean over tokens of Σ_j a_j over a group's features (protocol, section 11).

    Attributes:
        group: its name.
        n_features: its size.
        outlier: mean over outlier tokens; NaN without any.
        normal: mean over the others.
    """

    group: str
    n_features: int
    outlier: float
    normal: float


def group_activation(
    activity: FeatureActivity, groups: Mapping[str, Group]
) -> list[GroupActivation]:
    """Return each group's activation; the mean of a sum is the sum of the features' means."""
    return group_activation_of(
        activity.mean_on("outlier").numpy(), activity.mean_on("normal").numpy(), groups
    )


def group_activation_of(
    mean_on_outlier: NDArray[np.float64],
    mean_on_normal: NDArray[np.float64],
    groups: Mapping[str, Group],
) -> list[GroupActivation]:
    """Return the same from the columns that ``evaluate`` has written, [m] each."""
    found: list[GroupActivation] = []
    for name, group in groups.items():
        mask = group_mask(group, len(mean_on_outlier)).numpy()
        outlier, normal = (float(mean[mask].sum()) for mean in (mean_on_outlier, mean_on_normal))
        found.append(GroupActivation(name, int(mask.sum()), outlier, normal))
    return found
