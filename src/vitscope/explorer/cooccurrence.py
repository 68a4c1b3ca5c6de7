"""What a feature is found with: over its top images, and among the decoder's directions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from vitscope.explorer.lens import PLAIN, Lens
from vitscope.explorer.live import TextSide
from vitscope.explorer.pictures import PictureKey
from vitscope.images.decode import UnreadableImageError
from vitscope.removal.remove import remove
from vitscope.scope.outliers import NormHistogram

LISTED = 10
"""Features or words in a list."""

FEWEST_SHARED = 3
"""Tokens that two features must share to be listed together: one may be chance."""

IMAGES_FOR_WORDS = 8
"""Top images that are resumed without the feature: each costs two passes of the later blocks."""

WIDEST_COUNT = 40
"""Bins of the histogram of norms: a feature fires on some dozens of tokens."""


def describe_cooccurrence(lens: Lens, feature: int) -> dict[str, Any]:
    """Return what a feature is found with, as plain JSON.

    All but the neighbours is computed here from the plain view of the feature's top images, and
    says so: nothing of it is stored by the run.
    """
    exemplars = lens.live.exemplars
    keys = [PictureKey(int(i)) for i in exemplars.image[exemplars.of(feature)]]
    readable = [key for key in keys if _can_be_read(lens, key)]
    return {
        "n_images": len(readable),
        "n_unreadable": len(keys) - len(readable),
        "nearest": _nearest(lens, feature),
        **_firing(lens, feature, readable),
        "words": _words(lens, feature, readable[:IMAGES_FOR_WORDS]),
    }


def coarse_bins(norms: NormHistogram) -> NormHistogram:
    """Return the histogram with neighbouring bins joined, at most ``WIDEST_COUNT`` of them."""
    n_bins = len(norms.counts)
    step = -(-n_bins // WIDEST_COUNT)
    starts = np.arange(0, n_bins, step)
    edges = np.append(norms.edges[starts], norms.edges[-1])
    return NormHistogram(edges, np.add.reduceat(norms.counts, starts))


def shares_of(norms: NDArray[np.float64], edges: NDArray[np.float64]) -> list[float]:
    """Return the share of ``norms`` in each bin; what lies beyond counts in the outermost ones."""
    if not norms.size:
        return [0.0] * (len(edges) - 1)
    logs = np.clip(np.log10(np.maximum(norms, 10 ** edges[0])), edges[0], edges[-1])
    counts, _ = np.histogram(logs, edges)
    return [float(share) for share in counts / norms.size]


def _can_be_read(lens: Lens, key: PictureKey) -> bool:
    try:
        lens.encode(key)
    except UnreadableImageError:
        return False
    return True


def _nearest(lens: Lens, feature: int) -> list[dict[str, float]]:
    """Return the decoder directions of largest cosine with the feature's own."""
    with torch.inference_mode():
        rows = normalize(lens.live.loaded().sae.w_dec, dim=1)
        cosine = rows @ rows[feature]
        cosine[feature] = -torch.inf
        values, indices = cosine.topk(min(LISTED, len(rows) - 1))
    return [
        {"feature": int(index), "cosine": float(value)}
        for value, index in zip(values, indices, strict=True)
    ]


def _firing(lens: Lens, feature: int, keys: Sequence[PictureKey]) -> dict[str, Any]:
    """Return the tokens it fires on: how many, of which norms, and with which other features."""
    run, m = lens.live.run, lens.live.n_features
    norms, n_tokens = [np.zeros(0)], 0
    shared, anywhere = np.zeros((2, m), np.int64)
    for picture in map(lens.encode, keys):
        active = picture.active
        tokens, features = active.rows.cpu().numpy(), active.features.cpu().numpy()
        fires = np.zeros(active.n_rows, bool)
        fires[tokens[features == feature]] = True
        anywhere += np.bincount(features, minlength=m)
        shared += np.bincount(features[fires[tokens]], minlength=m)
        norms.append(picture.norms[fires])
        n_tokens += active.n_rows
    fired = np.concatenate(norms)
    shared[feature] = 0
    order = np.argsort(-shared, kind="stable")[:LISTED]
    return {
        "n_tokens": n_tokens,
        "n_fired": len(fired),
        "norms": shares_of(fired, coarse_bins(run.outliers.norms).edges),
        "n_above_tau": int((fired > run.outliers.tau).sum()),
        # beside the share of its tokens: how often the other fires on these images anyway
        "together": [
            {
                "feature": int(other),
                "share": float(shared[other] / len(fired)),
                "anyway": float(anywhere[other] / n_tokens),
            }
            for other in order
            if shared[other] >= FEWEST_SHARED
        ],
    }


def _words(lens: Lens, feature: int, keys: Sequence[PictureKey]) -> dict[str, Any]:
    """Return the phrases that its top images resemble less once it is removed."""
    text, why_not = lens.live.text()
    if text is None:
        return {"why_not": why_not}
    if not keys:
        return {"why_not": "none of its top images can be read"}
    mean = np.mean([_fall(lens, feature, key, text) for key in keys], axis=0)
    order = np.argsort(-mean, kind="stable")[:LISTED]
    return {
        "n_images": len(keys),
        "n_phrases": len(text.phrases),
        "listed": [
            {"phrase": text.phrases[i], "fall": float(mean[i])} for i in order if mean[i] > 0
        ],
    }


def _fall(lens: Lens, feature: int, key: PictureKey, text: TextSide) -> NDArray[np.float64]:
    """Return by how much each phrase's cosine with the picture falls without the feature, [W]."""
    with torch.inference_mode():
        plain = lens.encode(key).patch[PLAIN][None]
        ablated = remove(lens.live.loaded().sae, plain, [feature])
        cosine = text.phrase_cosines(lens.resume(key, torch.cat([plain, ablated])))
    return (cosine[0] - cosine[1]).double().cpu().numpy()
