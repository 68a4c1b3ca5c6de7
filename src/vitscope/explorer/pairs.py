"""One exemplar pair of a feature: its maps, its distance, and how the mass moves."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitscope.explorer.lens import FIRST, SECOND, Lens
from vitscope.explorer.pictures import NoSuchPictureError, PictureKey
from vitscope.explorer.tables import NOT_SCORED
from vitscope.figures.pictures import heat_png_bytes
from vitscope.scope.views import Overlap
from vitscope.transport.flows import Flow, optimal_flow

ARROWS_SHOWN = 60
"""The heaviest streams of a flow; further ones would be specks."""

AGREES_WITHIN = 1e-2
"""Patches by which a distance computed here may differ from the stored one: the run may have
computed on another device or in another batch."""


def exemplar_row(lens: Lens, feature: int, rank: int) -> int:
    """Return the row of a feature's exemplar among all exemplars.

    Raises:
        NoSuchPictureError: the feature has none of this rank.
    """
    rows = lens.live.exemplars.of(feature)
    found = np.flatnonzero(lens.live.exemplars.rank[rows] == rank)
    if not found.size:
        raise NoSuchPictureError(f"feature {feature} has no top image of rank {rank}")
    return rows.start + int(found[0])


def heat(lens: Lens, feature: int, rank: int, view: int) -> bytes:
    """Return a feature's map in one view of an exemplar as a PNG; all views share the scale.

    Raises:
        NoSuchPictureError: the feature has no exemplar of this rank.
    """
    maps = lens.maps(feature, _key(lens, exemplar_row(lens, feature, rank)))
    return heat_png_bytes(maps[view], float(maps.max(initial=0.0)))


def describe_pair(lens: Lens, feature: int, rank: int) -> dict[str, Any]:
    """Return what the page says and draws of one exemplar pair, as plain JSON.

    Raises:
        NoSuchPictureError: the feature has no exemplar of this rank.
    """
    run, row = lens.live.run, exemplar_row(lens, feature, rank)
    maps = lens.maps(feature, _key(lens, row))
    overlap = Overlap(run.site.grid, run.study.scope.shift)
    first, second = (
        maps[view].ravel()[cells].reshape(overlap.side, overlap.side)
        for view, cells in ((FIRST, overlap.first), (SECOND, overlap.second))
    )
    flow = optimal_flow(first, second)
    return {
        "rank": rank,
        "peak": float(maps.max(initial=0.0)),
        "cells": [int((one > 0).sum()) for one in (first, second)],
        "overlap": {"side": overlap.side, "shift": overlap.shift, "grid": overlap.grid},
        "mass": [_shares(first), _shares(second)],
        "emd": None if flow is None else flow.emd,
        "differs": _differs(lens, row, flow),
        "stays": None if flow is None else flow.stays,
        "arrows": [] if flow is None else _arrows(flow)[:ARROWS_SHOWN],
        "n_arrows": 0 if flow is None else len(flow.mass),
    }


def _key(lens: Lens, row: int) -> PictureKey:
    return PictureKey(int(lens.live.exemplars.image[row]))


def _differs(lens: Lens, row: int, flow: Flow | None) -> bool:
    """Whether the run stored another distance; NaN stands there where a view was empty."""
    exemplars = lens.live.exemplars
    if exemplars.cells_first[row] == NOT_SCORED:
        return False
    stored = float(exemplars.emd[row])
    if flow is None or math.isnan(stored):
        return flow is not None or not math.isnan(stored)
    return abs(flow.emd - stored) > AGREES_WITHIN


def _arrows(flow: Flow) -> list[list[float]]:
    """Return streams as (row, column, row, column, mass), the heaviest first."""
    return [
        [*map(int, source), *map(int, target), float(mass)]
        for source, target, mass in zip(flow.source, flow.target, flow.mass, strict=True)
    ]


def _shares(one: NDArray[np.float64]) -> list[list[float]]:
    """Return the cells of a map with mass as (row, column, share of the whole)."""
    total = float(one.sum())
    rows, columns = np.nonzero(one > 0)
    return [
        [int(row), int(column), float(one[row, column]) / total]
        for row, column in zip(rows, columns, strict=True)
    ]
