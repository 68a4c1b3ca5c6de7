"""Whole dictionaries: top images joined with pairs, one table for the browser, two side by side."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from vitscope.backbones.backbone import Site
from vitscope.images.sources import ImageRef
from vitscope.run import Run
from vitscope.scope.stability import LEAST_COSINE, match_features

NOT_SCORED = -1
"""Cells of a pair that the run left out, as where it scores a sample of its features."""

SHOWN = (
    "cds",
    "cds_se",
    "n_pairs",
    "n_missed",
    "moved",
    "flicker",
    "border",
    "departure",
    "support",
    "relative",
    "density",
    "mean_activation",
    "max_activation",
    "mean_on_outlier",
    "mean_on_other",
)
"""_Columns of ``features.parquet`` that the table can show, sort and filter by, where there."""

COMPARED_BINS = 50
"""Of the histograms of two runs side by side."""

MOST_MATCHED = 3_000
"""Points drawn; all of them enter the correlation."""

_ALIGNMENT = 8
"""Of a float64; columns of wider values come first."""

_Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Exemplars:
    """The strongest images of every feature; arrays [N], ordered by feature, then rank.

    Attributes:
        feature: index in the dictionary.
        rank: 0 for the feature's strongest image.
        image: position in the run's evaluation images.
        activation: the feature's maximum on that image, unshifted.
        emd: distance between both views' maps, in patches; NaN unless both have mass.
        cells_first: active overlap cells in view 1; ``NOT_SCORED`` where the run did not look.
        cells_second: active overlap cells in view 2.
    """

    feature: NDArray[np.int64]
    rank: NDArray[np.int64]
    image: NDArray[np.int64]
    activation: NDArray[np.float64]
    emd: NDArray[np.float64]
    cells_first: NDArray[np.int64]
    cells_second: NDArray[np.int64]

    @classmethod
    def join(cls, strongest: _Columns, pairs: _Columns) -> "Exemplars":
        """Put the scored pairs beside the exemplars; a run may score a sample of its features.

        Raises:
            TypeError: a column of counts has other values than whole numbers.
        """
        feature, rank, image = (_whole(strongest, name) for name in ("feature", "rank", "image"))
        pair_rank = _whole(pairs, "rank")
        # one number for (feature, rank), by which both tables are sorted and joined
        width = int(max(rank.max(initial=0), pair_rank.max(initial=0))) + 1
        keys = feature * width + rank
        order = np.argsort(keys, kind="stable")
        rows = np.searchsorted(keys[order], _whole(pairs, "feature") * width + pair_rank)
        emd, cells = np.full(len(keys), np.nan), np.full((2, len(keys)), NOT_SCORED)
        emd[rows] = pairs["emd"]
        cells[0, rows], cells[1, rows] = _whole(pairs, "cells_first"), _whole(pairs, "cells_second")
        activation = strongest["activation"][order].astype(np.float64)
        return cls(feature[order], rank[order], image[order], activation, emd, cells[0], cells[1])

    def of(self, feature: int) -> slice:
        """Return the rows of one feature."""
        first, last = np.searchsorted(self.feature, [feature, feature + 1])
        return slice(int(first), int(last))


def _whole(table: _Columns, name: str) -> NDArray[np.int64]:
    """Return a column of whole numbers; of another it is not known what NumPy would make."""
    if table[name].dtype.kind not in "iu":
        raise TypeError(f"column {name} has {table[name].dtype}, and not whole numbers")
    return table[name].astype(np.int64)


def encode_columns(features: _Columns, exemplars: Exemplars, images: Sequence[ImageRef]) -> bytes:
    """Return the table of features as :func:`pack` does, with each one's commonest class."""
    columns: dict[str, NDArray[Any]] = {
        # γ is compared with CDS: rounding would put a feature at the threshold on the other side
        name: np.asarray(features[name], np.float64 if name == "cds" else np.float32)
        for name in SHOWN
        if name in features or name == "cds"
    }
    n = len(columns["cds"])
    names, label, share = class_labels(exemplars, [ref.label for ref in images], n)
    return pack(columns | {"label": label, "label_share": share}, {"n": n, "labels": names})


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


def pack(columns: _Columns, header: Mapping[str, Any]) -> bytes:
    """Return columns as one binary answer, which a browser reads without parsing numbers.

    Layout: the header's length in bytes (uint32, little-endian), the header as JSON, padding to a
    multiple of eight, then each column's little-endian values where the header says. _Columns of
    wider values come first, so that each lies where a typed array may begin.
    """
    places: dict[str, dict[str, Any]] = {}
    offset = 0
    for name, values in columns.items():
        places[name] = {"type": values.dtype.name, "offset": offset, "length": len(values)}
        offset += values.nbytes
    text = json.dumps({**header, "columns": places}).encode()
    text += b" " * (-(len(text) + 4) % _ALIGNMENT)
    parts = [values.astype(values.dtype.newbyteorder("<")).tobytes() for values in columns.values()]
    return len(text).to_bytes(4, "little") + text + b"".join(parts)


def without_nan(values: NDArray[np.float64], digits: int = 17) -> list[float | None]:
    """Return figures as JSON may have them: None for what is not defined."""
    return [round(float(value), digits) if np.isfinite(value) else None for value in values]


def why_unmatched(one: Site, other: Site) -> str | None:
    """Return why features of two runs cannot be told to be the same; None where they can."""
    for name, text in (("model", "models"), ("weights", "weights"), ("layer", "blocks")):
        if getattr(one, name) != getattr(other, name):
            return (
                f"the runs read different {text}: their features live in different spaces, and "
                "no cosine between decoder directions means anything"
            )
    return None


def describe_comparison(one: Run, other: Run) -> dict[str, Any]:
    """Return what the page of two runs shows, as plain JSON.

    Features are matched by their decoder directions, where both runs read the same activations;
    their SAEs are loaded then.
    """
    reason = why_unmatched(one.site, other.site)
    return {
        "edges": np.linspace(0.0, 1.0, COMPARED_BINS + 1).tolist(),
        "runs": [_course(run) for run in (one, other)],
        "matched": _matched(one, other) if reason is None else {"why_not": reason},
    }


def _course(run: Run) -> dict[str, Any]:
    """Return a run's histogram of CDS, and awCDS over the norm."""
    cds = run.partition.cds
    scored = cds[np.isfinite(cds)]
    counts, _ = np.histogram(scored, COMPARED_BINS, (0.0, 1.0))
    spectrum = run.awcds.spectrum if run.has("awcds") else None
    return {
        "name": run.name,
        "gamma": run.partition.gamma,
        "share": (counts / max(scored.size, 1)).tolist(),
        "spectrum": spectrum
        and {
            name: without_nan(getattr(spectrum, name))
            for name in ("percentile", "awcds", "low", "high")
        },
    }


def _matched(one: Run, other: Run) -> dict[str, Any]:
    found = match_features(_directions(one), _directions(other))
    cds = one.partition.cds, other.partition.cds
    a, b = cds[0][found.one], cds[1][found.other]
    scored = np.isfinite(a) & np.isfinite(b)
    n_scored = int(scored.sum())
    drawn = np.flatnonzero(scored)[:: max(1, -(-n_scored // MOST_MATCHED))]
    return {
        "least": LEAST_COSINE,
        "n_matched": len(found.one),
        "n_scored": n_scored,
        "n_features": [len(values) for values in cds],
        "correlation": float(np.corrcoef(a[scored], b[scored])[0, 1]) if n_scored > 2 else None,
        "points": [
            [int(found.one[i]), int(found.other[i]), float(a[i]), float(b[i])] for i in drawn
        ],
    }


def _directions(run: Run) -> Tensor:
    return normalize(run.sae.w_dec.detach().float().cpu(), dim=1)
