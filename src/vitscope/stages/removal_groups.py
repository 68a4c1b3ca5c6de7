"""What is taken out of the tokens: both groups of the partition, and random ones that match."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitscope.removal.controls import matched_controls
from vitscope.removal.remove import FeatureGroup
from vitscope.stages.partition import PartitionStage
from vitscope.stages.stage import Job

GROUPS = ("high", "low")


@dataclass(frozen=True)
class RemovedGroup:
    """One variant of the tokens.

    Attributes:
        variant: ``high-removed``, ``random-high-0``, …
        of: the group that is removed, or that a control stands in for.
        is_control: random features rather than the group itself.
        n_features: how many are removed.
        energy_share: their share of the contribution energy of all features.
        rate_share: their share of all firings.
    """

    variant: str
    of: str
    is_control: bool
    n_features: int
    energy_share: float
    rate_share: float


@dataclass(frozen=True)
class DrawnControl:
    """Random features drawn in place of a group; only those that match it are removed.

    Attributes:
        variant: its name as a variant.
        of: the group.
        n_features: drawn.
        n_group: features of the group that fire, each of which wants a stand-in.
        energy_ratio: contribution energy over that of the group.
        rate_ratio: firings over those of the group.
        is_matched: both are near 1.
        message: in a sentence, what was found, or why no match exists.
    """

    variant: str
    of: str
    n_features: int
    n_group: int
    energy_ratio: float
    rate_ratio: float
    is_matched: bool
    message: str


@dataclass(frozen=True)
class RemovedGroups:
    """Every variant beside the original, and every control that was drawn.

    Attributes:
        groups: those that are removed, in order.
        controls: of each group, matched or not.
    """

    groups: tuple[RemovedGroup, ...]
    controls: tuple[DrawnControl, ...]

    @property
    def unmatched(self) -> dict[str, str]:
        """FeatureGroup -> why no control matches it, where none does."""
        matched = {group.of for group in self.groups if group.is_control}
        return {one.of: one.message for one in self.controls if one.of not in matched}


def control_name(of: str, seed: int) -> str:
    """Return the variant's name of a control."""
    return f"random-{of}-{seed}"


def removed_groups(job: Job) -> tuple[RemovedGroups, Mapping[str, FeatureGroup]]:
    """Read the partition, draw the controls of both groups; return the features of each variant.

    A group without features is left out: removing nothing is the original.
    """
    features = job.result(PartitionStage).features
    energy, rate = features["energy"], features["rate"]
    seed, n = job.study.seed, job.study.probes.n_controls
    masks: dict[str, FeatureGroup] = {}
    groups: list[RemovedGroup] = []
    drawn: list[DrawnControl] = []

    def remove(variant: str, of: str, mask: NDArray[np.bool_], *, is_control: bool) -> None:
        energy_share, rate_share = (
            float(v[mask].sum() / max(v.sum(), np.finfo(v.dtype).tiny)) for v in (energy, rate)
        )
        masks[variant] = mask
        groups.append(
            RemovedGroup(variant, of, is_control, int(mask.sum()), energy_share, rate_share)
        )

    for of in GROUPS:
        mask = np.asarray(features["group"] == of)
        if not mask.any():
            continue
        remove(f"{of}-removed", of, mask, is_control=False)
        for control in matched_controls(mask, energy, rate, seeds=range(seed, seed + n)):
            name = control_name(of, control.seed)
            ratios = control.energy_ratio, control.rate_ratio
            sizes = len(control.features), control.n_group
            told = DrawnControl(name, of, *sizes, *ratios, control.is_matched, control.message)
            drawn.append(told)
            if control.is_matched:
                remove(name, of, np.isin(np.arange(len(mask)), control.features), is_control=True)
    return RemovedGroups(tuple(groups), tuple(drawn)), masks
