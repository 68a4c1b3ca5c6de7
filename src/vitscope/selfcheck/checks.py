"""Every bound: what the oracle's scope must be in closed form, and what training must recover."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import mannwhitneyu
from torch.nn.functional import normalize

from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.backbones.planted.spec import Kind
from vitscope.backbones.planted.truth import expected_cds, expected_instability
from vitscope.images.loading import to_square
from vitscope.images.sources import ImageRef
from vitscope.run import Run
from vitscope.sae.model import SparseAutoencoder
from vitscope.scope.instability import ATTENTION_READINGS
from vitscope.scope.pairs import feature_maps
from vitscope.scope.stability import spearman
from vitscope.scope.views import Overlap, shifted_views
from vitscope.selfcheck.truth import (
    TruthTables,
    defined_mean,
    load_prepared,
    oracle_sae,
    read_truth,
    true_awcds,
    true_maps,
)
from vitscope.store.records import to_json

CDS_TOLERANCE = 0.02
LEAST_AUROC = 0.99
LEAST_EXEMPLAR_AGREEMENT = 0.95
"""Noise may swap exemplars whose true activations almost tie."""

INSTABILITY_TOLERANCE = 0.05
"""In patches, on top of four standard errors of measurement and truth together."""

MAP_IMAGES = 8
"""Every cell of every atom is compared: a few images say all."""

NOISE_DEVIATIONS = 7
"""An active cell's code carries the noise along its atom: of half a million cells none should be
further from the truth than so many standard deviations."""

LEAST_RECOVERED = {Kind.LOCAL: 0.95, Kind.GLOBAL: 0.85}
LEAST_RANK_CORRELATION = 0.9
CDS_RESOLUTION = 0.02
"""Scores closer than this are ties: it is what the oracle's own bound vouches for."""

MATCHED_COSINE = 0.8
"""A pair of atom and feature below this is no match, and its CDS is not compared."""

LEAST_RANKED = 3

_Column = NDArray[np.float64]


@dataclass(frozen=True)
class Check:
    """A figure against its truth.

    Attributes:
        name: what was measured.
        measured: by the pipeline.
        expected: by the specification; None for a figure with a bound but no single truth.
        bound: in words.
        passed: whether the bound holds; None where the figure is reported without one.
    """

    name: str
    measured: float
    expected: float | None
    bound: str
    passed: bool | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON, NaN as null."""
        return to_json(self)


def within(name: str, measured: float | None, expected: float, tolerance: float) -> Check:
    """Measured and expected differ by at most ``tolerance``; NaN (or null) never passes."""
    found, truth = _number(measured), _number(expected)
    return Check(name, found, truth, f"± {tolerance:.3g}", bool(abs(found - truth) <= tolerance))


def at_least(name: str, measured: float | None, least: float) -> Check:
    """Measured is at least ``least``; NaN (or null) never passes."""
    found = _number(measured)
    return Check(name, found, None, f"≥ {least:.3g}", bool(found >= least))


def at_most(name: str, measured: float | None, most: float) -> Check:
    """Measured is at most ``most``; NaN (or null) never passes."""
    found = _number(measured)
    return Check(name, found, None, f"≤ {most:.3g}", bool(found <= most))


def reported(name: str, measured: float | None, expected: float | None = None) -> Check:
    """A figure without a bound."""
    truth = None if expected is None else _number(expected)
    return Check(name, _number(measured), truth, "reported", None)


def failures(checks: Sequence[Check]) -> list[Check]:
    """Return the checks whose bound does not hold."""
    return [check for check in checks if check.passed is False]


def _number(value: float | None) -> float:
    # to Python's float: NumPy's comparisons give a bool of their own that `is False` overlooks
    return math.nan if value is None else float(value)


@dataclass(frozen=True)
class OracleRun:
    """A finished run of the oracle's SAE beside the truth.

    Attributes:
        run: what its stages have left.
        backbone: whose truth it is.
        features: ``features.parquet``.
        truth: what the atoms do on the evaluation images.
        closed: closed form under the rules for a miss, and the share of misses, each [n_atoms].
    """

    run: Run
    backbone: PlantedBackbone
    features: Mapping[str, NDArray[Any]]
    truth: TruthTables
    closed: Mapping[str, _Column]

    @classmethod
    def read(cls, root: Path, backbone: PlantedBackbone) -> "OracleRun":
        """Read a finished run; the truth comes from the specification and the pixels alone."""
        run = Run(root)
        shift = run.study.scope.shift
        expected = [expected_cds(backbone.spec, atom, shift) for atom in backbone.truth]
        closed = {
            name: np.asarray([getattr(e, name) for e in expected])
            for name in ("max", "drop", "zero", "missed")
        }
        truth = read_truth(backbone, run.verified("train").usable, shift)
        return cls(run, backbone, run.features, truth, closed)

    def of_kind(self, kind: Kind) -> NDArray[np.bool_]:
        """Return which features are of a kind, [n_atoms]."""
        return np.asarray([atom.kind is kind for atom in self.backbone.truth])

    def scored(self, kind: Kind) -> NDArray[np.bool_]:
        """Return which of them have a score."""
        return self.of_kind(kind) & np.isfinite(self.features["cds"])

    @property
    def views_on(self) -> NDArray[np.int64]:
        """In how many of an exemplar's two views its atom truly is on; pair by pair."""
        pairs = self.run.pairs
        return self.truth.present[pairs["image"], :, pairs["feature"]].sum(1)

    def expected_score(self) -> _Column:
        """Return each feature's closed form over its own pairs, missing counted D_grid.

        An atom chosen by the view's cell may be off in one view of an image at the cell's edge:
        those pairs, known from the truth, count as the misses that they are.
        """
        feature, n_atoms = self.run.pairs["feature"], len(self.backbone.truth)
        local = self.of_kind(Kind.LOCAL)[feature]
        value = np.where(local | (self.views_on == 2), self.closed["max"][feature], 1.0)
        counted = local | (self.views_on > 0)
        total = np.bincount(feature[counted], value[counted], n_atoms)
        return total / np.maximum(np.bincount(feature[counted], minlength=n_atoms), 1)


def check_oracle(found: OracleRun) -> list[Check]:
    """Compare every scope number of an oracle run with its closed form."""
    return [
        *_cds_checks(found),
        *_map_checks(found),
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
            defined_mean(cds[found.scored(kind)]),
            defined_mean(expected[found.scored(kind)]),
            CDS_TOLERANCE,
        )
        for kind in Kind
    ]
    families = [atom.family for atom in found.backbone.truth]
    for family in dict.fromkeys(families):
        rows = np.asarray([name == family for name in families]) & np.isfinite(cds)
        means = defined_mean(cds[rows]), defined_mean(expected[rows])
        checks.append(reported(f"  {family}", *means))
    local, of_view = cds[found.scored(Kind.LOCAL)], cds[found.scored(Kind.GLOBAL)]
    # U / (n·n') is the area under the ROC curve
    statistic = mannwhitneyu(of_view, local).statistic if local.size and of_view.size else np.nan
    auroc = float(statistic) / max(local.size * of_view.size, 1)
    return [*checks, at_least("AUROC, local against global", auroc, LEAST_AUROC)]


def _map_checks(found: OracleRun) -> list[Check]:
    """Compare the pipeline's maps on the overlap with the true codes, cell by cell.

    No distance between two maps shows what this does: a transposition of both views, or any other
    isometry of the grid, leaves every Earth Mover's Distance as it was.
    """
    backbone, shift = found.backbone, found.run.study.scope.shift
    refs = found.run.verified("train").usable
    some: Sequence[ImageRef] = refs[:: max(len(refs) // MAP_IMAGES, 1)][:MAP_IMAGES]
    site, sae = backbone.site, oracle_sae(backbone)
    views = torch.cat([*load_prepared(some, partial(shifted_views, site=site, shift=shift))])
    side = site.resolution + shift * site.patch
    squares = torch.cat([*load_prepared(some, partial(to_square, side=side))])
    every, overlap = torch.arange(backbone.spec.n_atoms), Overlap(site.grid, shift)
    error = 0.0
    for pair, square in zip(views, squares, strict=True):
        measured = feature_maps(sae, backbone.tokens(pair).patch, every, overlap)
        for one, true in zip(measured, true_maps(backbone, square, shift), strict=True):
            error = max(error, float(np.abs(one - true).max()))
    bound = NOISE_DEVIATIONS * backbone.spec.noise
    return [at_most("feature maps, largest error of a cell", error, bound)]


def _pair_checks(found: OracleRun) -> list[Check]:
    pairs, atoms = found.run.pairs, found.backbone.truth
    feature = pairs["feature"]
    first, second = pairs["cells_first"] > 0, pairs["cells_second"] > 0
    kept, seen = first & second, first | second
    shown = (found.views_on == 2) & seen
    # a single position is the family that misses often: its closed form is sharp enough to test
    single = shown & np.asarray([atom.support == 1 for atom in atoms])[feature]
    share = defined_mean((~kept[single]).astype(float))
    expected = defined_mean(found.closed["missed"][feature[single]])
    error = np.sqrt(expected * (1 - expected) / max(single.sum(), 1))
    counted = np.bincount(feature[seen], minlength=len(atoms))
    same = float((counted == found.features["n_pairs"]).mean())
    local = shown & found.of_kind(Kind.LOCAL)[feature]
    survival = defined_mean(kept[local].astype(float))
    return [
        within("share of misses, one position", share, expected, CDS_TOLERANCE + 3 * error),
        at_least("exemplars as the truth ranks them", _agreement(found), LEAST_EXEMPLAR_AGREEMENT),
        at_least("n_pairs as counted in pairs", same, 1.0),
        at_least("share of local pairs that survive", survival, 0.99),
    ]


def _agreement(found: OracleRun) -> float:
    """Share of exemplars whose true activation reaches the true k-th best."""
    table = found.run.exemplars
    feature, image = table["feature"], table["image"]
    counts = np.bincount(feature, minlength=len(found.backbone.truth))
    best = -np.sort(-found.truth.strongest, axis=0)
    kth = best[np.maximum(counts - 1, 0), np.arange(len(counts))]
    slack = 3 * found.backbone.spec.noise
    reached = found.truth.strongest[image, feature] >= kth[feature] - slack
    return defined_mean(reached.astype(float))


def _null_checks(found: OracleRun) -> list[Check]:
    of_view, local = found.scored(Kind.GLOBAL), found.scored(Kind.LOCAL)
    null, relative = found.features["null"], found.features["relative"]
    expected = defined_mean(found.closed["drop"][of_view])
    return [
        within("relocation null, global", defined_mean(null[of_view]), expected, CDS_TOLERANCE),
        within("CDS relative to the null, global", defined_mean(relative[of_view]), 1.0, 0.1),
        at_most("CDS relative to the null, local", defined_mean(relative[local]), 0.1),
    ]


def _token_checks(found: OracleRun) -> list[Check]:
    run, spec, truth = found.run, found.backbone.spec, found.truth
    of_all, of_outliers = run.reconstruction.all, run.reconstruction.outlier
    scores = np.where(np.isfinite(found.features["cds"]), found.expected_score(), np.nan)
    awcds = true_awcds(found.backbone, run.verified("train").usable, scores)
    tolerance, fvu_all, fvu_outlier = CDS_TOLERANCE, truth.fvu_all, truth.fvu_outlier
    return [
        within("share of tokens above τ", run.outliers.threshold.share, truth.outlier_share, 1e-9),
        within("L0 under θ", of_all.l0, spec.atoms_per_token, 0.02),
        within("FVU of all tokens", of_all.fvu, fvu_all, 0.02 * fvu_all),
        within("FVU of outlier tokens", of_outliers.fvu, fvu_outlier, 0.02 * fvu_outlier),
        within("awCDS, outlier tokens", run.awcds.on_outliers, awcds[0], tolerance),
        within("awCDS, other tokens", run.awcds.on_others, awcds[1], tolerance),
    ]


def _instability_checks(found: OracleRun) -> list[Check]:
    measured, shift = found.run.instability, found.run.study.scope.shift
    expected = expected_instability(found.backbone.spec, shift)
    # written out again: the pipeline's own would agree with itself
    diameter = np.sqrt(2.0) * (found.backbone.spec.grid - shift - 1)
    checks = [within("D_grid, patches", measured.diameter, diameter, 1e-9)]
    rows = {row.reading: row for row in measured.own}
    for reading in ATTENTION_READINGS:
        groups = {"out": rows[reading].outlier, "non": rows[reading].other}
        for (group, one), (mean, error) in zip(groups.items(), expected[reading], strict=True):
            spread = float(np.hypot(error, np.nan_to_num(one.error)))
            name = f"D̄_{group} under «{reading}», patches"
            checks.append(within(name, one.mean, mean, INSTABILITY_TOLERANCE + 4 * spread))
    return checks


@dataclass(frozen=True)
class Recovery:
    """One-to-one match of planted atoms with SAE features (Hungarian).

    Attributes:
        feature: matched feature of each atom, [n_atoms].
        cosine: of atom and decoder row, [n_atoms].
    """

    feature: NDArray[np.int64]
    cosine: NDArray[np.float64]


def match_atoms(backbone: PlantedBackbone, sae: SparseAutoencoder) -> Recovery:
    """Assign every atom its own feature so that the sum of cosines is largest."""
    cosine = (backbone.atoms @ normalize(sae.w_dec, dim=1).T).double().numpy()
    atom, feature = linear_sum_assignment(cosine, maximize=True)
    order = np.argsort(atom)
    return Recovery(feature[order], cosine[atom, feature][order])


def check_recovery(
    backbone: PlantedBackbone,
    recovery: Recovery,
    seen: NDArray[np.bool_],
    oracle_cds: NDArray[np.float64],
    trained_cds: NDArray[np.float64],
    *,
    bounded: bool,
) -> list[Check]:
    """Compare with the truth per kind, and the scores of matched features with the oracle's.

    Args:
        backbone: whose atoms they are.
        recovery: the match.
        seen: atoms that are active anywhere in the training images, [n_atoms]: no other can be
            learned.
        oracle_cds: the oracle's scores, [n_atoms].
        trained_cds: the trained SAE's scores, [m].
        bounded: whether the bounds apply, or the figures are only reported.
    """

    def checked(name: str, measured: float, least: float | None) -> Check:
        bound = least if bounded else None
        return reported(name, measured) if bound is None else at_least(name, measured, bound)

    kinds = np.asarray([atom.kind for atom in backbone.truth])
    matched = trained_cds[recovery.feature]
    usable = (recovery.cosine >= MATCHED_COSINE) & np.isfinite(matched) & np.isfinite(oracle_cds)
    one, other = oracle_cds[usable], matched[usable]
    concordance = ordered_concordance(one, other, CDS_RESOLUTION)
    ranks = float(spearman(one, other)) if one.size >= LEAST_RANKED else math.nan
    local = (kinds == Kind.LOCAL)[usable]
    return [
        *(
            checked(
                f"recovered atoms, cosine, {kind.value}",
                float(recovery.cosine[(kinds == kind) & seen].mean()),
                LEAST_RECOVERED.get(kind),
            )
            for kind in Kind
        ),
        reported("atoms matched and scored, share", float(usable[seen].mean())),
        checked("CDS rank agreement with the oracle", concordance, LEAST_RANK_CORRELATION),
        reported("  Spearman, true ties broken by noise", ranks),
        reported("  mean CDS, matched local", defined_mean(other[local]), defined_mean(one[local])),
    ]


def ordered_concordance(
    reference: NDArray[np.float64], scores: NDArray[np.float64], resolution: float
) -> float:
    """Somers' d over pairs whose reference values differ by more than ``resolution``.

    A pair in the same order counts 1, in the other order -1, a tie of the scores 0. All local atoms
    have the same true CDS, 0: the order of their measured scores is noise in the oracle too, and a
    rank correlation that counts it could not reach 1 for a perfect SAE.
    """
    apart = reference[:, None] - reference[None, :] > resolution
    if not apart.any():
        return float("nan")
    return float(np.sign(scores[:, None] - scores[None, :])[apart].mean())
