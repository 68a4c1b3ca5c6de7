"""Tables of a run read back as the records they were written from."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from vitscope.sae.quality import GroupMetrics, ReconstructionMetrics
from vitscope.scope.awcds import NormSpectrum
from vitscope.scope.outliers import NormHistogram, OutlierThreshold
from vitscope.store.atomic import read_json
from vitscope.store.run_directory import RunDirectory
from vitscope.store.tables import read_table


def read_reconstruction(run: RunDirectory) -> ReconstructionMetrics:
    """Return the figures of Table 6 that «evaluate» left."""
    table = read_json(run.table("reconstruction"))

    def group(name: str) -> GroupMetrics:
        values = {key: number(value) for key, value in table[name].items() if key != "n"}
        return GroupMetrics(n=int(table[name]["n"]), **values)

    return ReconstructionMetrics(all=group("all"), outlier=group("outlier"))


def read_threshold(run: RunDirectory) -> OutlierThreshold:
    """Return τ as «outliers» left it."""
    values = _only(OutlierThreshold, read_json(run.table("outliers")))
    values["mode_peaks"] = tuple(values["mode_peaks"])
    return OutlierThreshold(**values)


def read_spectrum(run: RunDirectory) -> NormSpectrum:
    """Return awCDS over norm percentiles as «awcds» left it."""
    return NormSpectrum(**_only(NormSpectrum, read_table(run.columns("awcds"))))


def read_norm_histogram(run: RunDirectory) -> NormHistogram:
    """Return the histogram of patch-token norms as «outliers» left it."""
    table = read_table(run.columns("norm_histogram"))
    edges = np.append(table["log10_low"], table["log10_high"][-1])
    return NormHistogram(edges=edges, counts=table["n_tokens"])


def number(value: float | None) -> float:
    """Return a number from JSON, where null stands for NaN."""
    return float("nan") if value is None else float(value)


def _only(record: type, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f.name: values[f.name] for f in fields(record)}
