"""A picture without some features: what is left of its tokens, and what is then predicted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vitscope.axes import Float
from vitscope.errors import VitscopeError
from vitscope.explorer.lens import PLAIN, Lens
from vitscope.explorer.looking import classify, pooled
from vitscope.explorer.pictures import PictureKey
from vitscope.explorer.records import RunRecord
from vitscope.removal.remove import remove
from vitscope.sae.model import SparseAutoencoder

RemovedGroup = Literal["none", "low", "high", "unscored", "all"]

MOST_FEATURES = 100_000
"""Features that a request may name one by one."""


@dataclass(frozen=True)
class Removal:
    """What is switched off.

    Attributes:
        features: one by one.
        group: and a whole group, at ``gamma``.
        gamma: γ as it stands on the page, which need not be the saved one.
        keep_error: whether what the SAE does not explain stays in the tokens.
        kept: features that stay although their group goes.
    """

    features: Sequence[int] = ()
    group: RemovedGroup = "none"
    gamma: float = 0.0
    keep_error: bool = True
    kept: Sequence[int] = ()


def removed_mask(run: RunRecord, removal: Removal) -> NDArray[np.bool_]:
    """Return which features go, [m].

    Raises:
        VitscopeError: a feature that does not exist.
    """
    cds = np.asarray(run.features["cds"], np.float64)
    scored = np.isfinite(cds)
    # as in the partition: an unscored feature may be counted as low
    unscored_is_low = run.scope.unscored == "low"
    low = (cds <= removal.gamma) | (~scored if unscored_is_low else False)
    masks: dict[RemovedGroup, NDArray[np.bool_]] = {
        "none": np.zeros(len(cds), bool),
        "all": np.ones(len(cds), bool),
        "low": low,
        "high": cds > removal.gamma,
        "unscored": ~scored & ~low,
    }
    mask = masks[removal.group].copy()
    for features, value in ((removal.features, True), (removal.kept, False)):
        wrong = [j for j in features if not 0 <= j < len(cds)]
        if wrong:
            raise VitscopeError(f"no feature {wrong[0]}; the run has 0 to {len(cds) - 1}")
        mask[list(features)] = value
    return mask


def describe_removal(lens: Lens, key: PictureKey, removal: Removal) -> dict[str, Any]:
    """Return what removal does to one picture, as plain JSON."""
    seen, models = lens.look(key), lens.run.models()
    mask = removed_mask(lens.run.record, removal)
    plain = seen.patch[PLAIN]
    members = torch.from_numpy(mask)
    with torch.inference_mode():
        without = remove(models.sae, plain, members, keep_error=removal.keep_error)
        outputs = pooled(models, torch.stack([plain, without]), seen)
        change = (without - plain).norm(dim=-1) / plain.norm(dim=-1).clamp_min(1e-12)
        direction = torch.cosine_similarity(outputs[0], outputs[1], dim=0)
    before, after = classify(models, outputs)
    active = torch.unique(seen.active.features).cpu()
    return {
        "n_removed": int(mask.sum()),
        "n_active": len(active),
        "n_active_removed": int(members[active].sum()),
        "change": [round(float(value), 5) for value in change],
        "mean_change": float(change.mean()),
        "pooled_cosine": float(direction),
        "reconstruction": {
            "with": _reconstruction(models.sae, plain, torch.zeros_like(members)),
            "without": _reconstruction(models.sae, plain, members),
        },
        "before": before,
        "after": after,
    }


def _reconstruction(
    sae: SparseAutoencoder, tokens: Float[torch.Tensor, "P d"], members: torch.Tensor
) -> dict[str, float]:
    """Return FVU and cosine of the reconstruction from the features outside ``members``.

    The mean of the FVU's denominator is that of this picture's tokens.
    """
    with torch.inference_mode():
        rebuilt = remove(sae, tokens, members, keep_error=False).double()
        exact = tokens.double()
        error = (exact - rebuilt).square().sum()
        spread = (exact - exact.mean(0)).square().sum()
        cosine = torch.cosine_similarity(exact, rebuilt, dim=-1).mean()
    return {"fvu": float(error / spread.clamp_min(1e-24)), "cosine": float(cosine)}
