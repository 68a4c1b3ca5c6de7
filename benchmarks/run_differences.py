"""How far the results of two runs are apart, quantity by quantity.

Activations move a little; what is cut at a threshold (θ, τ, γ) or ranked then moves by a whole
step, for the few things that lie that close to it. Both are told apart here: «of them» counts what
stepped, and the figure beside it holds for the rest.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitscope.run import Run
from vitscope.store.run_directory import RunDirectory
from vitscope.store.tables import read_table

Array = NDArray[Any]


@dataclass(frozen=True)
class Difference:
    """One quantity of two runs.

    Attributes:
        quantity: what is compared.
        largest: difference of the farthest apart; a share where ``kind`` is ``differ``.
        kind: ``relative``, ``absolute``, or ``differ``, the share that is not equal.
        n: how many were compared.
    """

    quantity: str
    largest: float
    kind: str
    n: int

    def __str__(self) -> str:
        if self.kind == "differ":
            return f"{self.quantity:46s} {round(self.largest * self.n):8d} differ of {self.n}"
        return f"{self.quantity:46s} {self.largest:8.1e} {self.kind}, of {self.n}"


def relative(quantity: str, found: Array, plain: Array) -> Difference:
    """The largest difference as a share of the plain value, where that is not 0 or NaN."""
    kept = np.isfinite(plain) & np.isfinite(found) & (plain != 0)
    gap = np.abs(found[kept] / plain[kept] - 1)
    return Difference(quantity, float(gap.max(initial=0)), "relative", int(kept.sum()))


def absolute(quantity: str, found: Array, plain: Array) -> Difference:
    """The largest difference where both are numbers."""
    kept = np.isfinite(plain) & np.isfinite(found)
    gap = np.abs(found[kept] - plain[kept])
    return Difference(quantity, float(gap.max(initial=0)), "absolute", int(kept.sum()))


def differ(quantity: str, unequal: Array) -> Difference:
    """The share of true entries."""
    return Difference(quantity, float(unequal.mean()) if unequal.size else 0.0, "differ",
                      unequal.size)  # fmt: skip


def array_differences(found: dict[str, Array], plain: dict[str, Array]) -> list[Difference]:
    """Compare what :func:`machines.probe_arrays` computes with the libraries themselves."""
    tokens, expected = (each["tokens of scenes-vit"].astype(float) for each in (found, plain))
    gap = np.linalg.norm(tokens - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    name = "exact EMD (numba)"
    return [
        differ("scenes: pixels", found["scenes (numba)"] != plain["scenes (numba)"]),
        relative("exact EMD of given maps", found[name], plain[name]),
        Difference("activations, length of the gap", float(gap.max()), "relative", gap.size),
    ]


def run_differences(found: RunDirectory, plain: RunDirectory) -> list[Difference]:
    """Compare every table of two runs of one study with a given SAE."""
    return [
        *_figures(found, plain),
        *_features(found, plain),
        *_exemplars_and_pairs(found, plain),
        *_attention(found, plain),
        *_probes(found, plain),
    ]


def _figures(found: RunDirectory, plain: RunDirectory) -> list[Difference]:
    mine, theirs = (asdict(Run(run.root).reconstruction) for run in (found, plain))

    def of(name: str) -> tuple[Array, Array]:
        both = ([float(table[group][name]) for group in ("all", "outlier")]
                for table in (mine, theirs))  # fmt: skip
        first, second = both
        return np.asarray(first), np.asarray(second)

    gamma, other = (Run(run.root).partition.gamma for run in (found, plain))
    tau, other_tau = (Run(run.root).outliers.tau for run in (found, plain))
    return [
        relative("FVU", *of("fvu")),
        relative("cosine", *of("cosine")),
        relative("L0", *of("l0")),
        relative("τ", np.asarray([tau]), np.asarray([other_tau])),
        differ("outlier tokens", np.asarray([mine["outlier"]["n"] != theirs["outlier"]["n"]])),
        absolute("γ", np.asarray([gamma]), np.asarray([other])),
    ]


def _features(found: RunDirectory, plain: RunDirectory) -> list[Difference]:
    mine, theirs = read_table(found.features), read_table(plain.features)
    scored = np.isfinite(theirs["cds"])
    other, stepped = ~_same_exemplars(found, plain), _stepped_features(found, plain)
    return [
        relative("max activation of a feature", mine["max_activation"], theirs["max_activation"]),
        relative("density of a feature", mine["density"], theirs["density"]),
        differ("features with other exemplars", other),
        absolute("CDS, nothing of it stepped", mine["cds"][~stepped], theirs["cds"][~stepped]),
        absolute("CDS, all features", mine["cds"], theirs["cds"]),
        differ("CDS more than 1e-4 apart", ~(np.abs(mine["cds"] - theirs["cds"])[scored] <= 1e-4)),
        absolute("mean CDS", np.nanmean(mine["cds"])[None], np.nanmean(theirs["cds"])[None]),
        differ("group of a feature", mine["group"] != theirs["group"]),
    ]


def _stepped_features(found: RunDirectory, plain: RunDirectory) -> Array:
    """Features with another exemplar, or with a pair in which a cell switched."""
    stepped = ~_same_exemplars(found, plain)
    mine, theirs = _pairs(found), _pairs(plain)
    for feature, image in mine.keys() & theirs.keys():
        if mine[feature, image][1:] != theirs[feature, image][1:]:
            stepped[feature] = True
    return stepped


def _rows(run: RunDirectory) -> dict[int, dict[int, float]]:
    table = read_table(run.exemplars)
    rows: dict[int, dict[int, float]] = {}
    for feature, image, value in zip(
        table["feature"].tolist(), table["image"].tolist(), table["activation"].tolist(),
        strict=True,
    ):  # fmt: skip
        rows.setdefault(feature, {})[image] = value
    return rows


def _same_exemplars(found: RunDirectory, plain: RunDirectory) -> Array:
    mine, theirs = _rows(found), _rows(plain)
    n = len(read_table(plain.features)["feature"])
    return np.asarray([mine.get(i, {}).keys() == theirs.get(i, {}).keys() for i in range(n)])


def _exemplars_and_pairs(found: RunDirectory, plain: RunDirectory) -> list[Difference]:
    mine, theirs = _rows(found), _rows(plain)
    rows = [(i, image) for i, own in theirs.items() for image in own]
    gone = np.asarray([image not in mine.get(i, {}) for i, image in rows])
    # an exemplar that gave way was as strong as the weakest that stayed, up to this
    margins = [theirs[i][image] / min(theirs[i].values()) - 1
               for (i, image), left in zip(rows, gone, strict=True) if left]  # fmt: skip
    values = [_pairs(run) for run in (found, plain)]
    shared = sorted(values[0].keys() & values[1].keys())
    a, b = (np.asarray([own[key] for key in shared]) for own in values)
    emd, other = a[:, 0], b[:, 0]
    stepped = (a[:, 1:] != b[:, 1:]).any(1) | (np.isnan(emd) != np.isnan(other))
    return [
        differ("exemplars", gone),
        Difference("margin of an exemplar that differs", max(margins, default=0.0), "relative",
                   len(margins)),
        differ("pairs with a cell switched on or off", stepped),
        absolute("EMD of a pair, the same cells", emd[~stepped], other[~stepped]),
        absolute("EMD of a pair, a cell switched", emd[stepped], other[stepped]),
    ]  # fmt: skip


def _pairs(run: RunDirectory) -> dict[tuple[int, int], list[float]]:
    table = read_table(run.pairs)
    names = ("feature", "image", "emd", "cells_first", "cells_second")
    rows = zip(*(table[name].tolist() for name in names), strict=True)
    return {(feature, image): values for feature, image, *values in rows}


def _attention(found: RunDirectory, plain: RunDirectory) -> list[Difference]:
    mine, theirs = (read_table(run.outliers) for run in (found, plain))
    awcds, other = (read_table(run.columns("awcds")) for run in (found, plain))
    stepped = mine["n_outliers"] != theirs["n_outliers"]
    return [
        differ("images' count of outlier tokens", stepped),
        absolute("attention EMD of an image, the same tokens", mine["emd"][~stepped],
                 theirs["emd"][~stepped]),
        absolute("attention EMD of an image, all", mine["emd"], theirs["emd"]),
        absolute("awCDS of a norm percentile", awcds["awcds"], other["awcds"]),
    ]  # fmt: skip


def _probes(found: RunDirectory, plain: RunDirectory) -> list[Difference]:
    if not (plain.root / "probes.parquet").exists():
        return []
    mine, theirs = (read_table(run.root / "probes.parquet") for run in (found, plain))
    numbers = [name for name, column in theirs.items() if column.dtype.kind == "f"]
    shown = [absolute(f"probes, {name}", mine[name], theirs[name]) for name in numbers]
    path = "predictions.parquet"
    if (plain.root / path).exists():
        some, other = (read_table(run.root / path) for run in (found, plain))
        shown += [differ(f"zero-shot, {name}", some[name] != column)
                  for name, column in other.items() if column.dtype.kind in "iO"]  # fmt: skip
    return shown


def trained_figures(run: RunDirectory) -> dict[str, float]:
    """Return what a report says of a newly trained SAE, by name."""
    table = Run(run.root).reconstruction.all
    features = read_table(run.features)
    return {
        "FVU": table.fvu,
        "L0": table.l0,
        "cosine": table.cosine,
        "silent share": float((features["density"] == 0).mean()),
        "mean CDS": float(np.nanmean(features["cds"])),
        "γ": Run(run.root).partition.gamma,
        "share low": float((features["group"] == "low").mean()),
    }


def as_json(differences: list[Difference]) -> str:
    """Return the differences for a program to read."""
    return json.dumps([asdict(one) for one in differences])
