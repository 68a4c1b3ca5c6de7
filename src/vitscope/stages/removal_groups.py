"""What is taken out of the tokens: both groups of the partition, and random ones that match."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitscope.removal.controls import Control, matched_controls
from vitscope.stages.context import Context
from vitscope.store.tables import read_table

GROUPS = ("high", "low")


@dataclass(frozen=True)
class RemovedGroup:
    """One variant of the tokens.

    Attributes:
        variant: ``high-removed``, ``random-high-0``, …
        of: the group that is removed, or that a control stands in for.
        mask: which features are removed, [m].
        energy_share: their share of the contribution energy of all features.
        rate_share: their share of all firings.
    """

    variant: str
    of: str
    mask: NDArray[np.bool_]
    energy_share: float
    rate_share: float

    def described(self) -> dict[str, Any]:
        """Return it as plain values, the mask as a count."""
        values = asdict(self)
        del values["mask"]
        return values | {"n_features": int(self.mask.sum())}


@dataclass(frozen=True)
class RemovedGroups:
    """Every variant beside the original, and what is to be said of controls.

    Attributes:
        groups: those that are removed, in order.
        controls: of each group, drawn or not; only those that match are removed.
    """

    groups: tuple[RemovedGroup, ...]
    controls: Mapping[str, Sequence[Control]]

    @property
    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """Variant -> which features are removed."""
        return {group.variant: group.mask for group in self.groups}

    def described(self) -> dict[str, Any]:
        """Return what a table says of them, as plain values."""
        controls = [
            {
                "of": of,
                "variant": control_name(of, control.seed),
                **{k: v for k, v in asdict(control).items() if k != "features"},
                "n_features": len(control.features),
            }
            for of, drawn in self.controls.items()
            for control in drawn
        ]
        return {"groups": [group.described() for group in self.groups], "controls": controls}


def control_name(of: str, seed: int) -> str:
    """Return the variant's name of a control."""
    return f"random-{of}-{seed}"


def removed_groups(context: Context) -> RemovedGroups:
    """Read the partition, and draw the controls of both groups.

    A group without features is left out: removing nothing is the original.
    """
    features = read_table(context.run.features)
    energy, rate = features["energy"], features["rate"]
    seed, n = context.study.seed, context.study.probes.n_controls

    def group(variant: str, of: str, mask: NDArray[np.bool_]) -> RemovedGroup:
        shares = (
            float(v[mask].sum() / max(v.sum(), np.finfo(v.dtype).tiny)) for v in (energy, rate)
        )
        return RemovedGroup(variant, of, mask, *shares)

    groups: list[RemovedGroup] = []
    controls: dict[str, Sequence[Control]] = {}
    for of in GROUPS:
        mask = np.asarray(features["group"] == of)
        if not mask.any():
            continue
        groups.append(group(f"{of}-removed", of, mask))
        controls[of] = matched_controls(mask, energy, rate, seeds=range(seed, seed + n))
        for control in controls[of]:
            if control.is_matched:
                chosen = np.zeros_like(mask)
                chosen[control.features] = True
                groups.append(group(control_name(of, control.seed), of, chosen))
    return RemovedGroups(tuple(groups), controls)
