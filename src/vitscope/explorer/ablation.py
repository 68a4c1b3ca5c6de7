"""A picture without some features: what is left of its tokens, and what is then predicted."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from vitscope.axes import Float
from vitscope.errors import VitscopeError
from vitscope.explorer.lens import PLAIN, Lens
from vitscope.explorer.pictures import PictureKey
from vitscope.removal.remove import remove
from vitscope.run import Run
from vitscope.sae.model import SparseAutoencoder
from vitscope.scope.partition import group_of

AblatedGroup = Literal["none", "low", "high", "unscored", "all"]

MOST_FEATURES = 100_000
"""Features that a request may name one by one."""


class Ablation(BaseModel):
    """Which features are switched off; a request's body, checked."""

    model_config = ConfigDict(extra="forbid", strict=True)

    features: list[int] = Field(default=[], max_length=MOST_FEATURES)
    """One by one."""

    kept: list[int] = Field(default=[], max_length=MOST_FEATURES)
    """Features that stay although their group goes."""

    group: AblatedGroup = "none"
    """And a whole group, at ``gamma``."""

    gamma: float = Field(default=0.0, ge=0, le=1)
    """γ as it stands on the page, which need not be the saved one."""

    keep_error: bool = True
    """Whether what the SAE does not explain stays in the tokens."""


def removed_mask(run: Run, wanted: Ablation) -> NDArray[np.bool_]:
    """Return which features go, [m].

    Raises:
        VitscopeError: a feature that does not exist.
    """
    cds = run.partition.cds
    group = group_of(cds, wanted.gamma, run.study.scope.unscored)
    mask = np.full(len(cds), wanted.group == "all") | (group == wanted.group)
    for features, value in ((wanted.features, True), (wanted.kept, False)):
        wrong = [j for j in features if not 0 <= j < len(cds)]
        if wrong:
            raise VitscopeError(f"no feature {wrong[0]}; the run has 0 to {len(cds) - 1}")
        mask[features] = value
    return mask


def describe_ablation(lens: Lens, key: PictureKey, wanted: Ablation) -> dict[str, Any]:
    """Return what removal does to one picture, as plain JSON."""
    picture, run = lens.encode(key), lens.live.loaded()
    plain, members = picture.patch[PLAIN], torch.from_numpy(removed_mask(run, wanted))
    with torch.inference_mode():
        ablated = remove(run.sae, plain, members, keep_error=wanted.keep_error)
        outputs = lens.resume(key, torch.stack([plain, ablated]))
        change = (ablated - plain).norm(dim=-1) / plain.norm(dim=-1).clamp_min(1e-12)
        direction = torch.cosine_similarity(outputs[0], outputs[1], dim=0)
    before, after = lens.predict(outputs)
    active = torch.unique(picture.active.features).cpu()
    return {
        "n_removed": int(members.sum()),
        "n_active": len(active),
        "n_active_removed": int(members[active].sum()),
        "change": [round(float(value), 5) for value in change],
        "mean_change": float(change.mean()),
        "pooled_cosine": float(direction),
        "reconstruction": {
            "with": _reconstruction(run.sae, plain, torch.zeros_like(members)),
            "without": _reconstruction(run.sae, plain, members),
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
