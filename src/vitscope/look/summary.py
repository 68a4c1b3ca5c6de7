"""What a look has found, and how firm it is with so few photographs, read from the run's results.

The words are careful because the score is: on real features a high CDS is mostly flicker at the
activation threshold, a pair in which the feature fires in one view alone (docs/look.md).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitscope.figures.numbers import UNDEFINED, decimal, percent, with_error
from vitscope.intervals import student_quantile
from vitscope.run import Run
from vitscope.scope.thresholds import FIRM_SHARE

NAMED_A_GROUP = 5
"""Features named of each group."""

HALVES = "exemplars of one half of the images, of the other"
"""The comparison of stage «stability» that is told."""

FEWEST_FOR_GROUPS = 10
"""Features a group must have for the groups to be compared."""

DIFFERS_FROM, DIFFERS_CLEARLY_FROM = 0.6, 0.75
"""Shares of (global, local) pairs in which the global one moves farther; 0.5 is no difference."""


@dataclass(frozen=True)
class NamedFeature:
    """A feature that is told by name.

    Attributes:
        feature: its index.
        group: ``local`` or ``global``.
        cds: its score, between 0 and 1.
        cds_se: its standard error.
        photographs: it is scored on.
        missed: of these, where it fires in one view alone.
        strongest: the photograph on which it is strongest.
        firm: whether γ lies outside of the score's 95 %.
    """

    feature: int
    group: str
    cds: float
    cds_se: float
    photographs: int
    missed: int
    strongest: str
    firm: bool


@dataclass(frozen=True)
class GroupFigures:
    """A group of features.

    Attributes:
        n: how many.
        n_firm: whose score has γ outside of its 95 %.
        missed_share: of their pairs, those in which a feature fires in one view alone.
        flicker_share: of these, those in which it stays near its threshold in the other view.
        over_null: median of the CDS without misses, over that of random placement.
    """

    n: int
    n_firm: int
    missed_share: float
    flicker_share: float
    over_null: float


@dataclass(frozen=True)
class LookSummary:
    """What was found.

    Attributes:
        n_photographs: looked at.
        n_features: of the SAE.
        n_firing: that fire on any of them.
        n_scored: that have a score.
        median_pairs: of a feature with a score.
        missed_share: of all pairs.
        gamma: where local ends.
        two_modes: whether the scores have two modes, and most bootstrap draws of them as well.
        half_spearman: rank correlation of the scores from both halves of the photographs.
        local: the group below γ.
        high: the group above γ, called global.
        moves_farther: share of (global, local) pairs of features in which the global one moves
            farther over its null, misses left out; 0.5 is no difference, NaN with few features.
        named: a few features of each group.
    """

    n_photographs: int
    n_features: int
    n_firing: int
    n_scored: int
    median_pairs: float
    missed_share: float
    gamma: float
    two_modes: bool
    half_spearman: float
    local: GroupFigures
    high: GroupFigures
    moves_farther: float
    named: tuple[NamedFeature, ...]


def summarise_look(run: Run) -> LookSummary:
    """Return what a finished look has found."""
    cut, table = run.partition, run.features
    scored = np.isfinite(cut.cds)
    pairs = table["n_pairs"][scored]
    halves = [row.spearman for row in run.stability.rows if row.change == HALVES]
    relative, firm = table["relative"].astype(np.float64), _firm(run)
    return LookSummary(
        n_photographs=run.reconstruction.n_images,
        n_features=run.training.n_features,
        n_firing=int((table["density"] > 0).sum()),
        n_scored=int(scored.sum()),
        median_pairs=float(np.median(pairs)),
        missed_share=_missed_share(run, np.flatnonzero(scored)),
        gamma=cut.gamma,
        two_modes=cut.source == "valley" and cut.evidence.valley_found >= FIRM_SHARE,
        half_spearman=halves[0] if halves else float("nan"),
        local=_group(run, cut.low, firm),
        high=_group(run, cut.high, firm),
        moves_farther=_above(relative[cut.high], relative[cut.low]),
        named=(*_named(run, cut.low, firm, "local"), *_named(run, cut.high, firm, "global")),
    )


def _missed_share(run: Run, features: NDArray[np.int64]) -> float:
    pairs = int(run.features["n_pairs"][features].sum())
    return float(run.features["n_missed"][features].sum()) / pairs if pairs else float("nan")


def _flicker_share(run: Run, features: NDArray[np.int64]) -> float:
    pairs = run.scoring.scores
    missed = pairs.missed & np.isin(pairs.feature, features)
    return float(pairs.misses["flicker"][missed].mean()) if missed.any() else float("nan")


def _firm(run: Run) -> NDArray[np.bool_]:
    """Return whose interval, Student's over so few pairs, leaves γ out."""
    gap = np.abs(run.partition.cds - run.partition.gamma)
    degrees = np.maximum(run.features["n_pairs"] - 1, 1)
    half = student_quantile(degrees) * run.features["cds_se"].astype(np.float64)
    return gap > half


def _group(run: Run, features: NDArray[np.int64], firm: NDArray[np.bool_]) -> GroupFigures:
    relative = run.features["relative"][features].astype(np.float64)
    known = relative[np.isfinite(relative)]
    return GroupFigures(
        n=len(features),
        n_firm=int(firm[features].sum()),
        missed_share=_missed_share(run, features),
        flicker_share=_flicker_share(run, features),
        over_null=float(np.median(known)) if known.size else float("nan"),
    )


def _above(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the share of pairs in which a value of ``one`` is the larger; ties count half."""
    one, other = np.sort(one[np.isfinite(one)]), np.sort(other[np.isfinite(other)])
    if min(len(one), len(other)) < FEWEST_FOR_GROUPS:
        return float("nan")
    below = np.searchsorted(other, one, "left") + np.searchsorted(other, one, "right")
    return float(below.mean() / 2 / len(other))


def _named(
    run: Run, features: NDArray[np.int64], firm: NDArray[np.bool_], group: str
) -> list[NamedFeature]:
    """Choose features of a group: firm ones first, then those that carry most of the tokens."""
    table = run.features
    order = np.lexsort((features, -table["rate"][features], ~firm[features]))
    first = run.exemplars["rank"] == 0
    strongest = dict(
        zip(
            run.exemplars["feature"][first].tolist(),
            run.exemplars["image_id"][first].tolist(),
            strict=True,
        )
    )
    return [
        NamedFeature(
            feature=j,
            group=group,
            cds=float(table["cds"][j]),
            cds_se=float(table["cds_se"][j]),
            photographs=int(table["n_pairs"][j]),
            missed=int(table["n_missed"][j]),
            strongest=strongest[j],
            firm=bool(firm[j]),
        )
        for j in features[order[:NAMED_A_GROUP]].tolist()
    ]


def feature_rows(found: LookSummary) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of a table of the named features."""
    headings = ["feature", "", "CDS", "photographs", "went out", "strongest on"]
    rows = [
        [
            str(one.feature),
            one.group if one.firm else f"{one.group}?",
            with_error(one.cds, one.cds_se),
            str(one.photographs),
            str(one.missed),
            one.strongest,
        ]
        for one in found.named
    ]
    return headings, rows


def look_notes(found: LookSummary) -> list[str]:
    """Return how firm it is, a sentence or two a note."""
    return [
        f"{found.n_scored:,} of {found.n_features:,} features have a score, {found.n_firing:,} "
        f"fire at all. A score is a mean over {found.median_pairs:.0f} photographs (median), each "
        f"in two views one patch apart; in {percent(found.missed_share)} of these pairs the "
        "feature went out in one view.",
        _words(found),
        _groups(found),
        _halves(found),
        "A «?» marks a score whose 95 % include γ: it could as well be in the other group.",
    ]


def _words(found: LookSummary) -> str:
    cut = (
        f"«Local» is a CDS up to γ = {decimal(found.gamma)}, «global» one above, low and high in "
        f"the explorer: {found.local.n:,} and {found.high.n:,} features, firmly so "
        f"{found.local.n_firm:,} and {found.high.n_firm:,}. "
    )
    if found.two_modes:
        return cut + "The scores have two modes, and γ lies between them."
    return cut + "The scores have no two modes that hold: γ is a convention, not a border."


def _groups(found: LookSummary) -> str:
    local, high = found.local, found.high
    told = (
        f"Why global: in {percent(high.missed_share)} of the global features' pairs the feature "
        f"went out in one view, in {percent(local.missed_share)} of the local ones'. "
    )
    if np.isfinite(high.flicker_share):
        told += (
            f"In {percent(high.flicker_share)} of those global pairs it stayed near its threshold "
            "there: it flickered, and had not gone. "
        )
    share = found.moves_farther
    if not np.isfinite(share):
        return told + "Beyond that, too few features are in one of the groups to compare them."
    beside = (
        f"(CDS over what random placement gives: {decimal(high.over_null, 2)} against "
        f"{decimal(local.over_null, 2)}; a global one above a local one in {percent(share)} of "
        "cases, where 50 % is no difference)."
    )
    if share < DIFFERS_FROM:
        return told + (
            f"Where it stays on, the groups do not differ {beside} So «global» means here that a "
            "feature flickers at its threshold, not that it sees the whole picture."
        )
    if share < DIFFERS_CLEARLY_FROM:
        return told + (
            f"Where it stays on, the groups differ little {beside} Much of «global» is flicker at "
            "the threshold here."
        )
    return told + f"Where it stays on, global features do move farther {beside}"


def _halves(found: LookSummary) -> str:
    if not np.isfinite(found.half_spearman):
        return f"Too few pairs to hold one half of the photographs against the other ({UNDEFINED})."
    return (
        f"Scores from one half of the photographs and from the other agree with a rank correlation "
        f"of {decimal(found.half_spearman, 2)} (1 is the same order, 0 none)."
    )
