"""The dictionary as one binary answer: columns that a browser reads without parsing numbers.

Layout: the header's length in bytes (uint32, little-endian), the header as JSON, padding to a
multiple of eight, then each column's little-endian values where the header says.
"""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitscope.explorer.records import Exemplars, RunRecord

SHOWN = (
    "cds",
    "cds_se",
    "n_pairs",
    "n_missed",
    "support",
    "relative",
    "density",
    "mean_activation",
    "max_activation",
    "mean_on_outlier",
    "mean_on_normal",
)
"""Columns of ``features.parquet`` that the table can show, sort and filter by, where there."""

_ALIGNMENT = 8
"""Of a float64; columns of wider values come first."""


def class_labels(
    exemplars: Exemplars, labels: list[str | None], n_features: int
) -> tuple[list[str], NDArray[np.int32], NDArray[np.float32]]:
    """Return the commonest class among the top images of every feature.

    Args:
        exemplars: top images.
        labels: class of every image, None without one.
        n_features: m.

    Returns:
        the classes' names; per feature the position of its commonest class, -1 where its top images
        have none [m]; the share of its top images that are of that class [m]. Of two equally
        common ones the first by name.
    """
    names = sorted({label for label in labels if label})
    codes = {name: code for code, name in enumerate(names)}
    of_image = np.array([codes.get(label or "", -1) for label in labels], np.int64)
    chosen, share = np.full(n_features, -1, np.int32), np.zeros(n_features, np.float32)
    if not names or not exemplars.feature.size:
        return names, chosen, share
    label = of_image[exemplars.image]
    labelled = label >= 0
    keys = exemplars.feature[labelled] * len(names) + label[labelled]
    pairs, counts = np.unique(keys, return_counts=True)
    feature, code = np.divmod(pairs, len(names))
    # the last write wins: ascending by count, and among equals descending by name
    order = np.lexsort((-code, counts))
    chosen[feature[order]] = code[order]
    n_top = np.bincount(exemplars.feature, minlength=n_features)
    share[feature[order]] = counts[order] / n_top[feature[order]]
    return names, chosen, share


def encode_columns(run: RunRecord) -> bytes:
    """Return the table of features of ``run``."""
    columns: dict[str, NDArray[Any]] = {
        # γ is compared with CDS: rounding would put a feature at the threshold on the other side
        name: np.asarray(run.features[name], np.float64 if name == "cds" else np.float32)
        for name in SHOWN
        if name in run.features
    }
    labels = [ref.label for ref in run.images]
    names, chosen, share = class_labels(run.exemplars, labels, run.n_features)
    columns |= {"label": chosen, "label_share": share}
    return pack(columns, {"n": run.n_features, "labels": names})


def pack(columns: dict[str, NDArray[Any]], header: dict[str, Any]) -> bytes:
    """Return columns behind a JSON header that says where each lies; wider values come first."""
    places: dict[str, dict[str, Any]] = {}
    offset = 0
    for name, values in columns.items():
        places[name] = {"type": values.dtype.name, "offset": offset, "length": len(values)}
        offset += values.nbytes
    text = json.dumps(header | {"columns": places}).encode()
    text += b" " * (-(len(text) + 4) % _ALIGNMENT)
    parts = [values.astype(values.dtype.newbyteorder("<")).tobytes() for values in columns.values()]
    return len(text).to_bytes(4, "little") + text + b"".join(parts)
