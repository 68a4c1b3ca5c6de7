"""What a feature is found with: over its top images, and among the decoder's directions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitscope.backbones.backbone import BlockTokens
from vitscope.explorer.lens import PLAIN, Lens
from vitscope.explorer.norm_bins import coarse_bins, shares_of
from vitscope.explorer.pictures import PictureKey
from vitscope.explorer.records import TextSide
from vitscope.images.decode import UnreadableImageError
from vitscope.removal.remove import remove

LISTED = 10
"""Features or words in a list."""

FEWEST_SHARED = 3
"""Tokens that two features must share to be listed together: one may be chance."""

IMAGES_FOR_WORDS = 8
"""Top images that are resumed without the feature: each costs two passes of the later blocks."""


def describe_company(lens: Lens, feature: int) -> dict[str, Any]:
    """Return what a feature is found with, as plain JSON.

    All but the neighbours is computed here from the plain view of the feature's top images, and
    says so: nothing of it is stored by the run.
    """
    keys = top_keys(lens, feature)
    readable = [key for key in keys if _can_be_read(lens, key)]
    return {
        "n_images": len(readable),
        "n_unreadable": len(keys) - len(readable),
        "nearest": _nearest(lens, feature),
        **_firing(lens, feature, readable),
        "words": _words(lens, feature, readable[:IMAGES_FOR_WORDS]),
    }


def top_keys(lens: Lens, feature: int) -> list[PictureKey]:
    """Return the addresses of a feature's top images, strongest first."""
    exemplars = lens.run.record.exemplars
    return [PictureKey(int(i)) for i in exemplars.image[exemplars.of(feature)]]


def _can_be_read(lens: Lens, key: PictureKey) -> bool:
    try:
        lens.look(key)
    except UnreadableImageError:
        return False
    return True


def _nearest(lens: Lens, feature: int) -> list[dict[str, float]]:
    """Return the decoder directions of largest cosine with the feature's own."""
    rows = lens.run.models().sae.w_dec
    with torch.inference_mode():
        length = rows.norm(dim=1).clamp_min(torch.finfo(rows.dtype).tiny)
        cosine = (rows @ rows[feature]) / (length * length[feature])
        cosine[feature] = -torch.inf
        values, indices = cosine.topk(min(LISTED, len(rows) - 1))
    return [
        {"feature": int(index), "cosine": float(value)}
        for value, index in zip(values, indices, strict=True)
    ]


def _firing(lens: Lens, feature: int, keys: Sequence[PictureKey]) -> dict[str, Any]:
    """Return the tokens it fires on: how many, of which norms, and with which other features."""
    norms, n_tokens = list[NDArray[np.float64]](), 0
    shared = np.zeros(lens.run.record.n_features, np.int64)
    others = np.zeros_like(shared)
    for key in keys:
        seen = lens.look(key)
        active = seen.active
        fires = torch.zeros(active.n_rows, dtype=torch.bool, device=active.rows.device)
        fires[active.rows[active.features == feature]] = True
        features = active.features.cpu().numpy()
        together = fires[active.rows].cpu().numpy()
        others += np.bincount(features, minlength=len(others))
        shared += np.bincount(features[together], minlength=len(shared))
        norms.append(seen.norms[fires.cpu().numpy()])
        n_tokens += active.n_rows
    fired = np.concatenate([np.zeros(0), *norms])
    return {
        "n_tokens": n_tokens,
        "n_fired": len(fired),
        "norms": shares_of(fired, coarse_bins(lens.run.record.norms).edges),
        "n_above_tau": int((fired > lens.run.record.tau.tau).sum()),
        "together": _together(feature, shared, others, len(fired), n_tokens),
    }


def _together(
    feature: int,
    shared: NDArray[np.int64],
    others: NDArray[np.int64],
    n_fired: int,
    n_tokens: int,
) -> list[dict[str, float]]:
    """List the features that share most tokens with it, beside how often they fire there anyway."""
    shared = shared.copy()
    shared[feature] = 0
    order = np.lexsort((np.arange(len(shared)), -shared))[:LISTED]
    return [
        {
            "feature": int(other),
            "share": float(shared[other] / n_fired),
            "anyway": float(others[other] / n_tokens),
        }
        for other in order
        if shared[other] >= FEWEST_SHARED
    ]


def _words(lens: Lens, feature: int, keys: Sequence[PictureKey]) -> dict[str, Any]:
    """Return the phrases that its top images resemble less once it is removed."""
    models = lens.run.models()
    text = models.text
    if text is None:
        return {"why_not": models.no_text}
    falls: list[NDArray[np.float64]] = []
    for key in keys:
        falls.append(_fall(lens, feature, key, text))
    if not falls:
        return {"why_not": "none of its top images can be read"}
    mean = np.mean(falls, axis=0)
    order = np.argsort(-mean, kind="stable")[:LISTED]
    return {
        "n_images": len(falls),
        "n_phrases": len(text.phrases),
        "listed": [
            {"phrase": text.phrases[i], "fall": float(mean[i])} for i in order if mean[i] > 0
        ],
    }


def _fall(lens: Lens, feature: int, key: PictureKey, text: TextSide) -> NDArray[np.float64]:
    """Return by how much each phrase's cosine with the picture falls without the feature, [W]."""
    models, seen = lens.run.models(), lens.look(key)
    with torch.inference_mode():
        plain = seen.patch[PLAIN][None]
        without = remove(models.sae, plain, [feature])
        both = BlockTokens(torch.cat([plain, without]), seen.prefix.expand(2, -1, -1))
        rows = text.tower.project(models.backbone.resume(both).pooled)
        cosine = rows @ text.phrase_rows.to(rows).T
    return (cosine[0] - cosine[1]).double().cpu().numpy()
