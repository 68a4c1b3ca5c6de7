"""What sets the two groups of features apart, in one row each."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitscope.report.data import ReportData


@dataclass(frozen=True)
class GroupProfile:
    """Medians over the features of one group that have the figure; sums where said.

    Attributes:
        name: ``low`` or ``high``.
        n: features.
        cds: median score.
        relative: median score relative to the relocation null.
        support: median number of active overlap patches.
        survival: median share of exemplar pairs with mass in both views.
        density: median share of tokens on which a feature is active.
        on_outliers: activation per outlier token, summed over the group.
        on_normal: activation per other token, summed over the group.
    """

    name: str
    n: int
    cds: float
    relative: float
    support: float
    survival: float
    density: float
    on_outliers: float
    on_normal: float


def group_profiles(data: ReportData) -> tuple[GroupProfile, GroupProfile]:
    """Return the profiles of the low-CDS and of the high-CDS group."""
    return _profile("low", data.partition.low, data), _profile("high", data.partition.high, data)


def _profile(name: str, group: NDArray[np.int64], data: ReportData) -> GroupProfile:
    scores, columns = data.scores, data.columns
    return GroupProfile(
        name=name,
        n=int(group.size),
        cds=_median(scores.cds[group]),
        relative=_median(scores.relative[group]),
        support=_median(scores.support[group]),
        survival=_median(scores.survival[group]),
        density=_median(columns["density"][group]) if "density" in columns else math.nan,
        on_outliers=_sum(columns.get("mean_on_outlier"), group),
        on_normal=_sum(columns.get("mean_on_normal"), group),
    )


def _median(values: NDArray[np.float64]) -> float:
    defined = values[np.isfinite(values)]
    return float(np.median(defined)) if defined.size else math.nan


def _sum(column: NDArray[np.float64] | None, group: NDArray[np.int64]) -> float:
    if column is None or not np.isfinite(column[group]).any():
        return math.nan
    return float(np.nansum(column[group]))
