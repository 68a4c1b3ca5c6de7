"""One exemplar pair of a feature: its maps, its distance, and how the mass moves."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitscope.emd.flows import Flow, optimal_flow
from vitscope.explorer.lens import FIRST, SECOND, Lens
from vitscope.explorer.pictures import NoSuchPictureError, PictureKey
from vitscope.explorer.records import NOT_SCORED
from vitscope.report.heatmap import heat_png_bytes
from vitscope.scope.views import Overlap

ARROWS_SHOWN = 60
"""The heaviest streams of a flow; further ones would be specks."""

AGREES_WITHIN = 1e-2
"""Patches by which a distance computed here may differ from the stored one: the run may have
computed on another device or in another batch."""


@dataclass(frozen=True)
class FeatureImage:
    """A feature's exemplar of some rank."""

    feature: int
    rank: int
    position: int

    @property
    def key(self) -> PictureKey:
        """The picture's address."""
        return PictureKey(self.position)


def exemplar(lens: Lens, feature: int, rank: int) -> FeatureImage:
    """Find an exemplar.

    Raises:
        NoSuchPictureError: the feature has none of this rank.
    """
    exemplars = lens.run.record.exemplars
    rows = exemplars.of(feature)
    found = np.flatnonzero(exemplars.rank[rows] == rank)
    if not found.size:
        raise NoSuchPictureError(f"feature {feature} has no top image of rank {rank}")
    return FeatureImage(feature, rank, int(exemplars.image[rows][found[0]]))


def heat(lens: Lens, feature: int, key: PictureKey, view: int) -> bytes:
    """Return a feature's map in one view as a PNG; all views share the scale of colours."""
    maps = lens.maps(feature, key)
    return heat_png_bytes(maps[view], float(maps.max(initial=0.0)))


def describe_pair(lens: Lens, shown: FeatureImage) -> dict[str, Any]:
    """Return what the page says and draws of one exemplar pair, as plain JSON."""
    run = lens.run.record
    maps = lens.maps(shown.feature, shown.key)
    overlap = Overlap(run.site.grid, run.scope.shift)
    first, second = (
        maps[view].ravel()[cells].reshape(overlap.side, overlap.side)
        for view, cells in ((FIRST, overlap.first), (SECOND, overlap.second))
    )
    flow = optimal_flow(first, second)
    stored = _stored(lens, shown)
    differs = stored is not None and not _agree(stored, flow)
    return {
        "rank": shown.rank,
        "peak": float(maps.max(initial=0.0)),
        "cells": [int((one > 0).sum()) for one in (first, second)],
        "overlap": {"side": overlap.side, "shift": run.scope.shift, "grid": run.site.grid},
        "mass": [_shares(first), _shares(second)],
        "emd": None if flow is None else flow.emd,
        "differs": differs,
        "stays": None if flow is None else flow.stays,
        "arrows": []
        if flow is None
        else [
            [*map(int, source), *map(int, target), float(mass)]
            for source, target, mass in zip(flow.source, flow.target, flow.mass, strict=True)
        ][:ARROWS_SHOWN],
        "n_arrows": 0 if flow is None else len(flow.mass),
    }


def _stored(lens: Lens, shown: FeatureImage) -> float | None:
    """Return the distance that the run stored, NaN where a view was empty; None: not scored."""
    exemplars = lens.run.record.exemplars
    rows = exemplars.of(shown.feature)
    row = rows.start + int(np.flatnonzero(exemplars.rank[rows] == shown.rank)[0])
    return None if exemplars.cells_first[row] == NOT_SCORED else float(exemplars.emd[row])


def _agree(stored: float, flow: Flow | None) -> bool:
    if flow is None or math.isnan(stored):
        return flow is None and math.isnan(stored)
    return abs(flow.emd - stored) <= AGREES_WITHIN


def _shares(one: NDArray[np.float64]) -> list[list[float]]:
    """Return the cells of a map with mass as (row, column, share of the whole)."""
    total = float(one.sum())
    rows, columns = np.nonzero(one > 0)
    return [
        [int(row), int(column), float(one[row, column]) / total]
        for row, column in zip(rows, columns, strict=True)
    ]
