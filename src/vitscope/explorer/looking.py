"""What the image page shows of a picture: norms, outliers, awCDS, and who is active where."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitscope.axes import Float
from vitscope.backbones.backbone import BlockTokens
from vitscope.explorer.lens import PLAIN, Lens, Seen
from vitscope.explorer.pictures import PictureKey
from vitscope.explorer.records import Models
from vitscope.sae.code import SparseCode

MOST_PER_PATCH = 64
"""The strongest features of a patch that the page lists; the count is that of all."""

CLASSES_SHOWN = 5


def describe_picture(lens: Lens, key: PictureKey) -> dict[str, Any]:
    """Return everything the image page draws, as plain JSON."""
    seen, run = lens.look(key), lens.run.record
    cds = np.asarray(run.features["cds"], np.float64)
    norms = seen.norms
    models = lens.run.models()
    return {
        "grid": run.site.grid,
        "norms": _plain(norms),
        "tau": run.tau.tau,
        "n_outliers": int((norms > run.tau.tau).sum()),
        "awcds": _plain(awcds_of(seen.active, cds)),
        **_active_features(seen.active),
        "prediction": predict(models, seen.patch[PLAIN][None], seen)[0],
        "no_text": models.no_text,
    }


def predict(
    models: Models, patch: Float[torch.Tensor, "V P d"], seen: Seen
) -> list[list[dict[str, Any]]]:
    """Return the likeliest classes of variants of a picture's patch tokens; none without text."""
    return classify(models, pooled(models, patch, seen))


def pooled(
    models: Models, patch: Float[torch.Tensor, "V P d"], seen: Seen
) -> Float[torch.Tensor, "V d_pooled"]:
    """Run the later blocks on variants of a picture's patch tokens."""
    with torch.inference_mode():
        prefix = seen.prefix.expand(len(patch), -1, -1)
        return models.backbone.resume(BlockTokens(patch, prefix)).pooled


def classify(models: Models, rows: Float[torch.Tensor, "V d_pooled"]) -> list[list[dict[str, Any]]]:
    """Return the likeliest classes of pooled outputs, likeliest first; none without text."""
    text = models.text
    if text is None:
        return [[] for _ in rows]
    with torch.inference_mode():
        image = text.tower.project(rows)
        share = torch.softmax((text.tower.scale * image @ text.classes.to(image).T).double(), -1)
        values, classes = share.topk(min(CLASSES_SHOWN, share.shape[1]), dim=-1)
    return [
        [
            {"name": text.prompts.classes[int(c)], "probability": float(v)}
            for v, c in zip(value, row, strict=True)
        ]
        for value, row in zip(values, classes, strict=True)
    ]


def awcds_of(active: SparseCode, cds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return awCDS of every token, NaN where no active feature has a CDS, [P]."""
    tokens, features = active.rows.cpu().numpy(), active.features.cpu().numpy()
    values = active.values.double().cpu().numpy()
    scored = np.isfinite(cds[features])
    total = np.bincount(tokens[scored], values[scored], active.n_rows)
    weighted = np.bincount(tokens[scored], values[scored] * cds[features[scored]], active.n_rows)
    return np.divide(weighted, total, out=np.full(active.n_rows, np.nan), where=total > 0)


def _active_features(active: SparseCode) -> dict[str, Any]:
    """Return the strongest features of every token, token by token."""
    tokens, features = active.rows.cpu().numpy(), active.features.cpu().numpy()
    values = active.values.double().cpu().numpy()
    counts = np.bincount(tokens, minlength=active.n_rows)
    order = np.lexsort((features, -values, tokens))
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = order[place < MOST_PER_PATCH]
    n_kept = np.bincount(tokens[kept], minlength=active.n_rows)
    return {
        "n_active": counts.tolist(),
        "offsets": [0, *np.cumsum(n_kept).tolist()],
        "features": features[kept].tolist(),
        "values": [round(float(value), 4) for value in values[kept]],
    }


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [round(float(value), 5) if np.isfinite(value) else None for value in values]
