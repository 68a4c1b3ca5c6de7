"""What the pipeline must find with the oracle: every figure against its closed form."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.backbones.planted.spec import Kind
from vitscope.backbones.planted.truth import expected_cds, expected_instability
from vitscope.images.sources import ImageRef
from vitscope.images.verify import read_image_table
from vitscope.scope.instability import READINGS
from vitscope.selfcheck.check import Check, at_least, at_most, reported, within
from vitscope.selfcheck.map_checks import check_maps
from vitscope.selfcheck.truth_tables import TruthTables, read_truth, true_awcds
from vitscope.store.atomic import read_json
from vitscope.store.run_directory import RunDirectory
from vitscope.store.tables import read_table

CDS_TOLERANCE = 0.02
LEAST_AUROC = 0.99
LEAST_EXEMPLAR_AGREEMENT = 0.95
"""Noise may swap exemplars whose true activations almost tie."""

INSTABILITY_TOLERANCE = 0.05
"""In patches, on top of four standard errors of measurement and truth together."""

Table = dict[str, NDArray[Any]]
Column = NDArray[np.float64]


@dataclass(frozen=True)
class OracleRun:
    """The artifacts of an oracle run beside the truth.

    Attributes:
        run: the run directory.
        backbone: whose truth it is.
        refs: the evaluation images.
        features: ``features.parquet``.
        pairs: ``pairs.parquet``.
        truth: what the atoms do on the evaluation images.
        closed: closed form under the three readings, and the share of misses, each [n_atoms].
        shift: s.
    """

    run: RunDirectory
    backbone: PlantedBackbone
    refs: Sequence[ImageRef]
    features: Table
    pairs: Table
    truth: TruthTables
    closed: dict[str, Column]
    shift: int

    @classmethod
    def read(cls, root: Path, backbone: PlantedBackbone, shift: int) -> "OracleRun":
        """Read a finished run; the truth comes from the specification and the pixels alone."""
        run = RunDirectory(root)
        expected = [expected_cds(backbone.spec, atom, shift) for atom in backbone.truth]
        closed = {
            name: np.asarray([getattr(e, name) for e in expected])
            for name in ("max", "drop", "zero", "missed")
        }
        refs = read_image_table(run.images("train")).usable
        truth = read_truth(backbone, refs, shift)
        features, pairs = read_table(run.features), read_table(run.pairs)
        return cls(run, backbone, refs, features, pairs, truth, closed, shift)

    def of_kind(self, kind: Kind) -> NDArray[np.bool_]:
        """Return which features are of a kind and have a score."""
        kinds = np.asarray([atom.kind is kind for atom in self.backbone.truth])
        return kinds & np.isfinite(self.features["cds"])

    def expected_score(self) -> Column:
        """Return each feature's closed form over its own pairs, missing counted D_grid.

        An atom chosen by the view's cell may be off in one view of an image at the cell's edge:
        those pairs, known from the truth, count as the misses that they are.
        """
        feature, image = self.pairs["feature"], self.pairs["image"]
        n_on = self.truth.present[image, :, feature].sum(1)
        local = np.asarray([atom.kind is Kind.LOCAL for atom in self.backbone.truth])[feature]
        value = np.where(local | (n_on == 2), self.closed["max"][feature], 1.0)
        counted = local | (n_on > 0)
        total = np.bincount(feature[counted], value[counted], len(self.backbone.truth))
        return total / np.maximum(np.bincount(feature[counted], minlength=len(total)), 1)


def check_oracle(found: OracleRun) -> list[Check]:
    """Compare every scope number of an oracle run with its closed form."""
    return [
        *_cds_checks(found),
        *check_maps(found.backbone, found.refs, found.shift),
        *_pair_checks(found),
        *_null_checks(found),
        *_token_checks(found),
        *_instability_checks(found),
    ]


def _cds_checks(found: OracleRun) -> list[Check]:
    cds, expected = found.features["cds"], found.expected_score()
    checks = [
        within(
            f"mean CDS, {kind.value}",
            _mean(cds[found.of_kind(kind)]),
            _mean(expected[found.of_kind(kind)]),
            CDS_TOLERANCE,
        )
        for kind in Kind
    ]
    families = [atom.family for atom in found.backbone.truth]
    for family in dict.fromkeys(families):
        rows = np.asarray([name == family for name in families]) & np.isfinite(cds)
        checks.append(reported(f"  {family}", _mean(cds[rows]), _mean(expected[rows])))
    local, of_view = cds[found.of_kind(Kind.LOCAL)], cds[found.of_kind(Kind.GLOBAL)]
    statistic = mannwhitneyu(of_view, local).statistic if local.size and of_view.size else np.nan
    auroc = float(statistic) / max(local.size * of_view.size, 1)
    return [*checks, at_least("AUROC, local against global", auroc, LEAST_AUROC)]


def _pair_checks(found: OracleRun) -> list[Check]:
    feature, image = found.pairs["feature"], found.pairs["image"]
    kept = (found.pairs["cells_first"] > 0) & (found.pairs["cells_second"] > 0)
    seen = kept | (found.pairs["cells_first"] > 0) | (found.pairs["cells_second"] > 0)
    on = found.truth.present[image, :, feature].all(1)
    # a single position is the family that misses often: its closed form is sharp enough to test
    single = np.asarray([atom.support == 1 for atom in found.backbone.truth])[feature]
    rows = single & on & seen
    share = _mean((~kept[rows]).astype(float))
    expected = _mean(found.closed["missed"][feature[rows]])
    error = np.sqrt(expected * (1 - expected) / max(rows.sum(), 1))
    counted = np.bincount(feature[seen], minlength=len(found.backbone.truth))
    same = float((counted == found.features["n_pairs"]).mean())
    return [
        within("share of misses, one position", share, expected, CDS_TOLERANCE + 3 * error),
        at_least("exemplars as the truth ranks them", _agreement(found), LEAST_EXEMPLAR_AGREEMENT),
        at_least("n_pairs as counted in pairs", same, 1.0),
        at_least("share of local pairs that survive", _local_survival(found), 0.99),
    ]


def _agreement(found: OracleRun) -> float:
    """Share of exemplars whose true activation reaches the true k-th best."""
    table = read_table(found.run.exemplars)
    feature, image = table["feature"], table["image"]
    counts = np.bincount(feature, minlength=len(found.backbone.truth))
    best = -np.sort(-found.truth.strongest, axis=0)
    kth = best[np.maximum(counts - 1, 0), np.arange(len(counts))]
    slack = 3 * found.backbone.spec.noise
    return _mean((found.truth.strongest[image, feature] >= kth[feature] - slack).astype(float))


def _local_survival(found: OracleRun) -> float:
    """Of the local pairs that the truth shows in both overlaps, the share found in both."""
    feature, image = found.pairs["feature"], found.pairs["image"]
    local = np.asarray([atom.kind is Kind.LOCAL for atom in found.backbone.truth])[feature]
    seen = (found.pairs["cells_first"] > 0) | (found.pairs["cells_second"] > 0)
    rows = local & seen & found.truth.present[image, :, feature].all(1)
    kept = (found.pairs["cells_first"] > 0) & (found.pairs["cells_second"] > 0)
    return _mean(kept[rows].astype(float))


def _null_checks(found: OracleRun) -> list[Check]:
    of_view, local = found.of_kind(Kind.GLOBAL), found.of_kind(Kind.LOCAL)
    null, relative = found.features["null"], found.features["relative"]
    expected = _mean(found.closed["drop"][of_view])
    return [
        within("relocation null, global", _mean(null[of_view]), expected, CDS_TOLERANCE),
        within("CDS relative to the null, global", _mean(relative[of_view]), 1.0, 0.1),
        at_most("CDS relative to the null, local", _mean(relative[local]), 0.1),
    ]


def _token_checks(found: OracleRun) -> list[Check]:
    outliers = read_json(found.run.table("outliers"))
    awcds = read_json(found.run.stamp("awcds"))["summary"]
    metrics = read_json(found.run.table("reconstruction"))
    spec, share, tolerance = found.backbone.spec, found.truth.outlier_share, CDS_TOLERANCE
    fvu_all, fvu_out = found.truth.fvu_all, found.truth.fvu_outlier
    scores = np.where(np.isfinite(found.features["cds"]), found.expected_score(), np.nan)
    on_outliers, on_others = true_awcds(found.backbone, found.refs, scores)
    return [
        within("share of tokens above τ", outliers["share"], share, 1e-9),
        within("L0 under θ", metrics["all"]["l0"], spec.atoms_per_token, 0.02),
        within("FVU of all tokens", metrics["all"]["fvu"], fvu_all, 0.02 * fvu_all),
        within("FVU of outlier tokens", metrics["outlier"]["fvu"], fvu_out, 0.02 * fvu_out),
        within("awCDS, outlier tokens", awcds["on_outliers"], on_outliers, tolerance),
        within("awCDS, other tokens", awcds["on_others"], on_others, tolerance),
    ]


def _instability_checks(found: OracleRun) -> list[Check]:
    measured = read_json(found.run.table("instability"))
    expected = expected_instability(found.backbone.spec, found.shift)
    # written out again: the pipeline's own would agree with itself
    diameter = np.sqrt(2.0) * (found.backbone.spec.grid - found.shift - 1)
    checks = [within("D_grid, patches", measured["diameter"], diameter, 1e-9)]
    for reading in READINGS:
        for group, (mean, error) in zip(("out", "non"), expected[reading], strict=True):
            row = measured["readings"][reading][group]
            spread = float(np.hypot(error, row["error"] or 0.0))
            name = f"D̄_{group} under «{reading}», patches"
            checks.append(within(name, row["mean"], mean, INSTABILITY_TOLERANCE + 4 * spread))
    return checks


def _mean(values: NDArray[Any]) -> float:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else float("nan")
