"""Contextual Dependency Score: one number per feature from its exemplar pairs (protocol, 6)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitscope.axes import Reals
from vitscope.scope.pairs import PairScores
from vitscope.scope.settings import Missing


@dataclass(frozen=True)
class FeatureScores:
    """Scope of every feature; arrays [m], NaN where a feature has no pair to speak for it.

    Attributes:
        cds: the score under the reading chosen (``missing``), between 0 and 1.
        cds_se: its standard error over exemplar pairs; NaN with fewer than two.
        cds_max: a pair that is empty in exactly one view counts D_grid.
        cds_drop: such a pair counts nothing.
        cds_zero: such a pair counts 0.
        moved: share of ``cds_max`` from pairs with mass in both views: with the three below it adds
            up to ``cds_max``, unless the SAE has no threshold to tell misses apart by.
        moved_se: its standard error over pairs.
        flicker: share of pairs missed though the feature is still near its threshold.
        flicker_se: its standard error.
        border: share of pairs missed as the content lies across the edge of what both views show.
        border_se: its standard error.
        departure: share of pairs missed otherwise.
        departure_se: its standard error.
        n_pairs: pairs that enter ``cds``.
        n_missed: pairs empty in exactly one view.
        n_exemplars: pairs looked at.
        survival: share of exemplar pairs with mass in both views.
        support: mean number of active overlap cells where there are any.
        null: ``cds_drop`` that random placement of the same maps would give.
        cross: ``cds_drop`` between views of different exemplar images.
        relative: ``cds_drop / null``: 0 anchored, about 1 relocating at random.
    """

    cds: Reals
    cds_se: Reals
    cds_max: Reals
    cds_drop: Reals
    cds_zero: Reals
    moved: Reals
    moved_se: Reals
    flicker: Reals
    flicker_se: Reals
    border: Reals
    border_se: Reals
    departure: Reals
    departure_se: Reals
    n_pairs: NDArray[np.int64]
    n_missed: NDArray[np.int64]
    n_exemplars: NDArray[np.int64]
    survival: Reals
    support: Reals
    null: Reals
    cross: Reals
    relative: Reals


def summarise_pairs(
    pairs: PairScores, n_features: int, diameter: float, missing: Missing, min_pairs: int = 1
) -> FeatureScores:
    """Average the pairs of every feature.

    Args:
        pairs: every scored pair.
        n_features: m.
        diameter: D_grid in patches, which bounds every distance.
        missing: the reading behind ``cds``.
        min_pairs: a mean over fewer is no score, but NaN.
    """

    def per_feature(values: Reals, rows: NDArray[np.bool_]) -> tuple[Reals, Reals, Reals]:
        feature = pairs.feature[rows]
        count: Reals = np.bincount(feature, minlength=n_features).astype(np.float64)
        total: Reals = np.bincount(feature, values[rows], n_features).astype(np.float64)
        mean = ratio_or_nan(total, count)
        # two-pass: a difference of large sums would lose the small spreads
        squares = (values[rows] - mean[feature]) ** 2
        spread: Reals = np.bincount(feature, squares, n_features).astype(np.float64)
        error = np.sqrt(
            ratio_or_nan(spread, np.where(count > 1, count - 1, 0)) / np.maximum(count, 1)
        )
        return mean, error, count

    def scored(values: Reals, rows: NDArray[np.bool_]) -> tuple[Reals, Reals, Reals]:
        mean, error, count = per_feature(values, rows)
        enough = count >= min_pairs
        return np.where(enough, mean, np.nan), np.where(enough, error, np.nan), count

    kept, missed = pairs.kept, pairs.missed
    share = np.where(kept, pairs.emd / diameter, 1.0)
    every = np.ones_like(kept)
    readings = {
        "max": scored(share, kept | missed),
        "drop": scored(share, kept),
        "zero": scored(np.where(kept, share, 0.0), kept | missed),
    }
    parts = {"moved": scored(np.where(kept, share, 0.0), kept | missed)}
    untold = pairs.untold
    parts |= {
        kind: scored(np.where(untold, np.nan, rows), kept | missed)
        for kind, rows in pairs.misses.items()
    }
    cds, error, count = readings[missing]
    null = per_feature(pairs.null / diameter, kept)[0]
    cells = np.where(
        kept, (pairs.cells_first + pairs.cells_second) / 2, pairs.cells_first + pairs.cells_second
    )
    n_exemplars = per_feature(share, every)[2]
    return FeatureScores(
        cds=cds,
        cds_se=error,
        cds_max=readings["max"][0],
        cds_drop=readings["drop"][0],
        cds_zero=readings["zero"][0],
        **{name: value for name, (value, _, _) in parts.items()},
        **{f"{name}_se": spread for name, (_, spread, _) in parts.items()},
        n_pairs=count.astype(np.int64),
        n_missed=np.bincount(pairs.feature[missed], minlength=n_features),
        n_exemplars=n_exemplars.astype(np.int64),
        survival=ratio_or_nan(readings["drop"][2], n_exemplars),
        support=per_feature(cells.astype(np.float64), kept | missed)[0],
        null=null,
        cross=per_feature(pairs.cross / diameter, np.isfinite(pairs.cross))[0],
        relative=ratio_or_nan(readings["drop"][0], null),
    )


def ratio_or_nan(numerator: Reals, denominator: Reals) -> Reals:
    """Divide; NaN where the denominator is not positive."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)
