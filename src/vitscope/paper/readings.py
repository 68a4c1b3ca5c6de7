"""The numbers that hang on an open point, under every reading at once."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from vitscope.errors import ConfigError
from vitscope.paper.assumptions import ASSUMPTIONS, written_value
from vitscope.paper.findings import FVU_CENTRES, OVER_IMAGES, Finding, FinishedRun
from vitscope.paper.reference import PaperNumber, columns_of, find_number, numbers_of
from vitscope.scope.cds import summarise_pairs
from vitscope.scope.instability import ATTENTION_READINGS
from vitscope.scope.partition import partition_features
from vitscope.stages.partition import MISS_RULES

EXEMPLARS = (1, 2, 4, 8, 16, 32, 64)
"""Readings of k_CDS, up to what a run has."""


@dataclass(frozen=True)
class PaperReading:
    """One number under one reading.

    Attributes:
        target: table that it belongs to.
        model: the backbone.
        quantity: what it is.
        assumption: what is read one way or another.
        reading: which way.
        chosen: whether the run itself reads it so.
        ours: the number.
        paper: the printed one; None where there is none.
        nearest: whether no other reading of the same assumption comes nearer to the paper's.
    """

    target: str
    model: str
    quantity: str
    assumption: str
    reading: str
    chosen: bool
    ours: Finding
    paper: PaperNumber | None
    nearest: bool = False


Row = tuple[str, str, str, str, bool, Finding]
"""Target, quantity, assumption, reading, whether it is the run's own, and the number."""


def list_readings(
    found: Sequence[FinishedRun], others: Sequence[FinishedRun]
) -> tuple[PaperReading, ...]:
    """Return every number under every reading that a run holds, or that another run is of.

    Args:
        found: the runs without other readings.
        others: the runs of these models with other readings.
    """
    readings: dict[tuple[str, ...], PaperReading] = {}
    for run in found:
        rows = (*_of_attention(run), *_of_fvu(run), *_of_scope(run), *_of_other_runs(run, others))
        for target, quantity, assumption, reading, chosen, ours in rows:
            paper = find_number(target, run.model, quantity)
            readings.setdefault(
                (run.model, target, quantity, assumption, reading),
                PaperReading(target, run.model, quantity, assumption, reading, chosen, ours, paper),
            )
    return tuple(with_nearest(list(readings.values())))


def _of_attention(run: FinishedRun) -> Iterator[Row]:
    """Three maps, three memberships, two means; Table 9 has every shift."""
    if not run.run.has("instability"):
        return
    outliers = run.study.outliers
    target = "table9" if numbers_of("table9", run.model) else "table7"
    shown = [
        row
        for row in run.run.instability.rows
        if target == "table9" or row.shift == run.study.scope.shift
        # what keys receive goes by each view's own outliers
        if row.reading != "received" or row.membership == "either"
    ]
    for row in sorted(shown, key=lambda row: (row.shift, ATTENTION_READINGS.index(row.reading))):
        own = (row.reading, row.membership) == (outliers.attention, outliers.membership)
        for mean in ("images", "pooled"):
            name = f"{row.reading}, outlier in {row.membership}, mean over {mean}"
            for group, of in (("other", row.other), ("outlier", row.outlier)):
                ends = (of.mean, of.low, of.high)
                if mean == "pooled":
                    ends = (of.pooled, of.pooled_low, of.pooled_high)
                ours, quantity = Finding(*ends, OVER_IMAGES), f"emd.{group}.{row.shift}"
                chosen = own and mean == "images"
                yield target, quantity, "attention, membership and mean", name, chosen, ours


def _of_fvu(run: FinishedRun) -> Iterator[Row]:
    for group in ("all", "outlier"):
        for name, words in FVU_CENTRES.items():
            if f"{name}.{group}" in run.numbers:
                ours, quantity = run.numbers[f"{name}.{group}"], f"fvu.{group}"
                yield "table6", quantity, "what FVU is about", words, name == "fvu", ours


def _of_scope(run: FinishedRun) -> Iterator[Row]:
    """Cut every reading of a miss, with fewer exemplars too, at its own γ and at the paper's."""
    if not run.run.has("partition"):
        return
    scope, scoring, n_features = run.study.scope, run.run.scoring, run.run.partition.cds.size
    pairs = scoring.scores.strong(scope.min_strength)
    gammas = {"its own γ": scope.gamma}
    stated = find_number("table4", run.model, "gamma")
    if stated is not None:
        gammas["the paper's γ"] = stated.value
    for k in (*(k for k in EXEMPLARS if k < scope.top_images), scope.top_images):
        some, least = pairs.take(np.flatnonzero(pairs.rank < k)), min(scope.min_pairs, k)
        for missing in MISS_RULES:
            scores = summarise_pairs(some, n_features, scoring.diameter, missing, least)
            for name, gamma in gammas.items():
                try:
                    cut = partition_features(scores.cds, gamma=gamma, unscored="separate")
                except ConfigError:
                    continue  # with so few pairs no feature has a score
                chosen = (k, missing, gamma) == (scope.top_images, scope.missing, scope.gamma)
                reading = f"k = {k}, missing = {missing}, {name}"
                sizes = {group: getattr(cut, group).size for group in ("high", "low", "unscored")}
                for quantity, value in {"gamma": cut.gamma, **sizes}.items():
                    ours = Finding(float(value))
                    yield "table4", quantity, "k_CDS, missing and γ", reading, chosen, ours


def _of_other_runs(run: FinishedRun, others: Sequence[FinishedRun]) -> Iterator[Row]:
    """Set what another run changes beside what the model's own run has."""
    for other in others:
        if other.model != run.model or len(other.readings) != 1:
            continue
        ((key, value),) = other.readings.items()
        own = ASSUMPTIONS[key].value_in(run.study)
        if key == "probe_at":  # tasks differ in it: another run changes those that read elsewhere
            own = "final" if value == "designated" else "designated"
        written = "the zoo's" if own is None else written_value(own)
        for quantity, theirs in other.numbers.items():
            target, ours = _target_of(quantity, run), run.numbers.get(quantity)
            if target is None or ours is None or _is_same(ours, theirs):
                continue
            yield target, quantity, key, written, True, ours
            yield target, quantity, key, written_value(value), False, theirs


def _target_of(quantity: str, run: FinishedRun) -> str | None:
    """Return the first target of a run that shows a quantity."""
    for target in run.targets:
        columns = numbers_of(target.name, run.model) or columns_of(target)
        if any(number.quantity == quantity for number in columns):
            return target.name
    return None


def _is_same(ours: Finding, theirs: Finding) -> bool:
    """Whether another run took the number over rather than measure it anew."""
    return ours == theirs or not (math.isfinite(ours.value) or math.isfinite(theirs.value))


def with_nearest(rows: Sequence[PaperReading]) -> list[PaperReading]:
    """Mark, of every number, the reading that comes nearest to the paper's, where it has one."""

    def key(row: PaperReading) -> tuple[str, ...]:
        return (row.model, row.target, row.assumption, row.quantity)

    def gap(row: PaperReading) -> float:
        return math.inf if row.paper is None else abs(row.ours.value - row.paper.value)

    found: list[PaperReading] = []
    for _, group in groupby(sorted(rows, key=key), key):
        some = list(group)
        least = min(filter(math.isfinite, map(gap, some)), default=math.nan)
        found += [replace(row, nearest=gap(row) == least) for row in some]
    return found
