"""The numbers that hang on an assumption, under every reading at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from vitscope.errors import ConfigError
from vitscope.paper.assumptions import ASSUMPTIONS
from vitscope.paper.claims import Found
from vitscope.paper.comparison import columns_of
from vitscope.paper.measured import Measured
from vitscope.paper.reference import PaperNumber, Reference
from vitscope.scope.cds import summarise_pairs
from vitscope.scope.instability import READINGS
from vitscope.scope.partition import partition_features
from vitscope.scope.settings import Missing
from vitscope.stages.instability_table import read_instability
from vitscope.stages.score import read_pairs
from vitscope.store.tables import read_metadata, read_table

MISSING: tuple[Missing, ...] = ("max", "drop", "zero")
CENTRES = {
    "fvu": "mean of all tokens",
    "fvu_own_mean": "own mean",
    "fvu_uncentred": "uncentred",
}
"""What FVU is about: the name of its figure, and in words."""

TABLE_9 = "table9"


@dataclass(frozen=True)
class Reading:
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
    ours: Measured
    paper: PaperNumber | None
    nearest: bool = False


def list_readings(
    found: Sequence[Found], others: Sequence[Found], reference: Reference
) -> tuple[Reading, ...]:
    """Return every number under every reading that a run holds, or that another run is of.

    Args:
        found: the runs without other readings.
        others: the runs of these models with other readings.
        reference: the paper's numbers.
    """
    rows: list[Reading] = []
    for one in found:
        if one.run.has("instability"):
            rows += _of_attention(one, reference)
        if one.run.has("evaluate"):
            rows += _of_centring(one, reference)
        if one.run.has("partition"):
            rows += _of_scope(one, reference)
        rows += _of_other_runs(one, others, reference)
    return tuple(with_nearest(rows))


def _of_attention(one: Found, reference: Reference) -> list[Reading]:
    study, rows = one.run.study, list[Reading]()
    table = read_instability(one.run.run.table("instability"))
    target = TABLE_9 if reference.of(TABLE_9, one.run.model) else "table7"
    shifts = {row.shift for row in table.rows} if target == TABLE_9 else {study.scope.shift}
    order = {name: i for i, name in enumerate(READINGS)}
    for row in sorted(table.rows, key=lambda r: (r.shift, order[r.reading])):
        if row.shift not in shifts or (row.reading == "received" and row.membership != "either"):
            continue  # what keys receive goes by each view's own outliers
        for mean in ("images", "pooled"):
            chosen = (row.reading, row.membership) == (
                study.outliers.attention,
                study.outliers.membership,
            ) and mean == "images"
            name = f"{row.reading}, outlier in {row.membership}, mean over {mean}"
            for group, values in (("non", row.non), ("out", row.out)):
                quantity = f"emd.{group}.{row.shift}"
                ours = Measured(values.mean, values.low, values.high, "images")
                if mean == "pooled":
                    ours = Measured(values.pooled, values.pooled_low, values.pooled_high, "images")
                paper = reference.find(target, one.run.model, quantity)
                rows.append(
                    Reading(
                        target,
                        one.run.model,
                        quantity,
                        "attention, membership and mean",
                        name,
                        chosen,
                        ours,
                        paper,
                    )
                )
    return rows


def _of_centring(one: Found, reference: Reference) -> list[Reading]:
    rows: list[Reading] = []
    for group in ("all", "outlier"):
        paper = reference.find("table6", one.run.model, f"fvu.{group}")
        for name, words in CENTRES.items():
            rows.append(
                Reading(
                    "table6",
                    one.run.model,
                    f"fvu.{group}",
                    "what FVU is about",
                    words,
                    name == "fvu",
                    one.numbers[f"{name}.{group}"],
                    paper,
                )
            )
    return rows


def _of_scope(one: Found, reference: Reference) -> list[Reading]:
    """Cut every reading of a miss, with fewer exemplars too, at its own γ and at the paper's."""
    run, scope = one.run.run, one.run.study.scope
    pairs, metadata = read_pairs(run.pairs), read_metadata(run.pairs)
    n_features = read_table(run.features)["cds"].size
    gammas = {"its own γ": scope.gamma}
    stated = reference.find("table4", one.run.model, "gamma")
    if stated is not None:
        gammas["the paper's γ"] = stated.value
    rows: list[Reading] = []
    ks = [k for k in (1, 2, 4, 8, 16, 32, 64) if k < scope.top_images] + [scope.top_images]
    for k in ks:
        some = pairs.take(np.flatnonzero(pairs.rank < k))
        for missing in MISSING:
            least = min(scope.min_pairs, k)
            scores = summarise_pairs(some, n_features, float(metadata["diameter"]), missing, least)
            for name, gamma in gammas.items():
                try:
                    cut = partition_features(scores.cds, gamma=gamma, unscored="separate")
                except ConfigError:
                    continue  # with so few pairs no feature has a score
                chosen = (k, missing, gamma) == (scope.top_images, scope.missing, scope.gamma)
                values = {
                    "gamma": cut.gamma,
                    "high": float(cut.high.size),
                    "low": float(cut.low.size),
                    "unscored": float(cut.unscored.size),
                }
                rows += [
                    Reading(
                        "table4",
                        one.run.model,
                        quantity,
                        "k_CDS, missing and γ",
                        f"k = {k}, missing = {missing}, {name}",
                        chosen,
                        Measured(value),
                        reference.find("table4", one.run.model, quantity),
                    )
                    for quantity, value in values.items()
                ]
    return rows


def _of_other_runs(one: Found, others: Sequence[Found], reference: Reference) -> list[Reading]:
    """Set what another run changes beside what the model's own run has."""
    rows: list[Reading] = []
    for other in others:
        if other.run.model != one.run.model or len(other.run.readings) != 1:
            continue
        ((key, value),) = other.run.readings.items()
        own = ASSUMPTIONS[key].value_in(one.run.study)
        if key == "probe_at":
            own = "final" if value == "designated" else "designated"
        for quantity in other.numbers:
            target = _target_of(quantity, one, reference)
            if target is None or quantity not in one.numbers or _same(one, other, quantity):
                continue
            paper = reference.find(target, one.run.model, quantity)
            written = "the zoo's" if own is None else str(own).lower()
            for reading, chosen, source in (
                (written, True, one),
                (str(value).lower(), False, other),
            ):
                rows.append(
                    Reading(
                        target,
                        one.run.model,
                        quantity,
                        key,
                        reading,
                        chosen,
                        source.numbers[quantity],
                        paper,
                    )
                )
    seen: dict[tuple[str, ...], Reading] = {}
    for row in rows:
        seen.setdefault((row.target, row.quantity, row.assumption, row.reading), row)
    return list(seen.values())


def _target_of(quantity: str, one: Found, reference: Reference) -> str | None:
    """Return the first target of a run that shows a quantity."""
    for target in one.run.targets:
        columns = reference.of(target.name, one.run.model) or columns_of(target, reference)
        if any(number.quantity == quantity for number in columns):
            return target.name
    return None


def _same(one: Found, other: Found, quantity: str) -> bool:
    """Whether another run took the number over rather than measure it anew."""
    ours, theirs = one.numbers[quantity], other.numbers[quantity]
    return ours == theirs or not (math.isfinite(ours.value) or math.isfinite(theirs.value))


def with_nearest(rows: Sequence[Reading]) -> list[Reading]:
    """Mark, of every number, the reading that comes nearest to the paper's, where it has one."""

    def key(row: Reading) -> tuple[str, ...]:
        return (row.model, row.target, row.assumption, row.quantity)

    found: list[Reading] = []
    for _, group in groupby(sorted(rows, key=key), key):
        some = list(group)
        gaps = [
            abs(row.ours.value - row.paper.value) if row.paper is not None else math.inf
            for row in some
        ]
        known = [gap for gap in gaps if math.isfinite(gap)]
        least = min(known, default=math.nan)
        found += [replace(row, nearest=gap == least) for row, gap in zip(some, gaps, strict=True)]
    return found
