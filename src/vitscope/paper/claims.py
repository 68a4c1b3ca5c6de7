"""Verdicts on the paper's qualitative claims: the rows of ``claims.toml``, and their judge."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Literal

from vitscope.paper.findings import Finding, Findings, FinishedRun, compared_shifts
from vitscope.paper.reference import read_rows
from vitscope.paper.targets import families

SIGNIFICANCE = 0.05
"""Of the tests of one mode."""

FIRM, ABSENT = 0.9, 0.1
"""Share of bootstrap draws with a valley from which it is there, and below which it is not."""

NO_OUTLIERS = "the norms have no second mode, so that nothing is an outlier here: τ is a percentile"


class Judgement(StrEnum):
    """What a run says of a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    OPEN = "cannot be told"


@dataclass(frozen=True)
class Verdict:
    """What runs say of a claim.

    Attributes:
        claim: its key.
        models: on whose runs it rests.
        outcome: one of three.
        why: the numbers behind it, or what is missing.
    """

    claim: str
    models: tuple[str, ...]
    outcome: Judgement
    why: str


Relation = Literal["above", "below", "within", "sure"]
"""To a bound: above it, below it, less than it from 0 either way; or a share of resamples."""


@dataclass(frozen=True)
class Bound:
    """A number of a run and where it must lie.

    Attributes:
        quantity: its name among the findings; ``*`` stands for every shift compared.
        relation: to the value.
        value: the bound.
    """

    quantity: str
    relation: Relation = "above"
    value: float = 0.0


@dataclass(frozen=True)
class Claim:
    """A claim, and what a run must have found for it: it holds when every bound is kept.

    Attributes:
        key: its name.
        text: what the paper says.
        source: where.
        targets: tables and figures that it belongs to.
        rule: how a verdict is reached, with every bound.
        said: what the numbers are.
        bounds: by the label under which a number is told; none where a function judges. A bound
            whose number a run lacks leaves the claim open unless another contradicts it.
        digits: of the numbers as told.
        percent: whether they are told in per cent.
        on_outliers: whether it is about outlier tokens: a model without any says nothing.
        over: what is judged: each ``run`` alone, all ``sizes`` of a family, or the ``steps`` from
            each size to the next.
        beside: further numbers to be told.
    """

    key: str
    text: str
    source: str
    targets: tuple[str, ...]
    rule: str
    said: str = ""
    bounds: Mapping[str, Bound] = field(default_factory=dict[str, Bound])
    digits: int = 2
    percent: bool = False
    on_outliers: bool = False
    over: str = "run"
    beside: tuple[str, ...] = ()


def _read_claims() -> tuple[Claim, ...]:
    rows = read_rows("claims.toml")
    for row in rows.values():
        row["bounds"] = {label: Bound(*bound) for label, bound in row.get("bounds", {}).items()}
    return tuple(Claim(key=key, **row) for key, row in rows.items())


CLAIMS = _read_claims()
"""In the order of the paper's figures."""


def judge_claims(runs: Sequence[FinishedRun]) -> tuple[Verdict, ...]:
    """Return a verdict for every claim and every run, or family, that has what it looks at."""
    return tuple(verdict for claim in CLAIMS for verdict in verdicts_on(claim, runs))


def verdicts_on(claim: Claim, runs: Sequence[FinishedRun]) -> Iterator[Verdict]:
    """Yield the verdicts on one claim."""
    if claim.over != "run":
        yield from _of_families(claim, runs)
        return
    for run in runs:
        judged = _of_run(claim, run) if claim.bounds else two_modes(run.numbers)
        if judged is not None:
            yield Verdict(claim.key, (run.model,), *judged)


def decide(found: Finding, bound: Bound) -> Judgement:
    """Return whether a number keeps a bound, with its whole interval on one side.

    A number without an interval decides nothing; a share of resamples is its own.
    """
    low, high, value = found.low, found.high, bound.value
    match bound.relation:
        case "above":
            keeps, breaks = low > value, high < value
        case "below":
            keeps, breaks = high < value, low > value
        case "within":
            keeps, breaks = low > -value and high < value, low > value or high < -value
        case "sure":
            keeps, breaks = found.value >= value, found.value <= 1 - value
    if not (found.has_interval or bound.relation == "sure"):
        return Judgement.OPEN
    return Judgement.SUPPORTED if keeps else Judgement.CONTRADICTED if breaks else Judgement.OPEN


def all_of(outcomes: Sequence[Judgement]) -> Judgement:
    """Return the outcome of a claim that holds when every part does."""
    if Judgement.CONTRADICTED in outcomes:
        return Judgement.CONTRADICTED
    if outcomes and all(outcome is Judgement.SUPPORTED for outcome in outcomes):
        return Judgement.SUPPORTED
    return Judgement.OPEN


def _of_run(claim: Claim, run: FinishedRun) -> tuple[Judgement, str] | None:
    numbers, shifts = run.numbers, compared_shifts(run.numbers)

    def at_shifts(name: str) -> list[str]:
        return [name.replace("*", str(s)) for s in shifts] if "*" in name else [name]

    found: dict[str, Finding] = {}
    missing: list[str] = []
    outcomes: list[Judgement] = []
    for label, bound in claim.bounds.items():
        for at, quantity in zip(at_shifts(label), at_shifts(bound.quantity), strict=True):
            if quantity in numbers:
                found[at] = numbers[quantity]
                outcomes.append(decide(numbers[quantity], bound))
            else:
                missing.append(at)
    if not found:
        return None
    beside = [
        f"{name}: {numbers[name].value:.3f}" for names in claim.beside for name in at_shifts(names)
    ]
    if any(bound.quantity.startswith("emd.") for bound in claim.bounds.values()):
        beside.append(f"attention = {run.study.outliers.attention}")
    why = _told(claim, found) + (f" ({'; '.join(beside)})" if beside else "")
    if claim.on_outliers and not numbers.get("second-mode", Finding(1.0)).value:
        return Judgement.OPEN, f"{NO_OUTLIERS}; {why}"
    return _unless_missing(all_of(outcomes), why, missing)


def _of_families(claim: Claim, runs: Sequence[FinishedRun]) -> Iterator[Verdict]:
    """Judge each family of which a run has the number, its sizes from small to large."""
    (bound,) = claim.bounds.values()
    by_model = {run.model: run.numbers for run in runs if bound.quantity in run.numbers}
    for family in families(by_model):
        found = {m: by_model[m][bound.quantity] for m in family if m in by_model}
        missing, why = [m for m in family if m not in found], _told(claim, found)
        if claim.over == "sizes":
            outcome = all_of([decide(number, bound) for number in found.values()])
            outcome, why = _unless_missing(outcome, why, missing)
        elif missing:
            outcome = Judgement.OPEN
            why = f"a trend over sizes needs every size; not run: {', '.join(missing)}; {why}"
        else:
            steps = [_difference(b, a) for a, b in pairwise(found.values())]
            outcome = all_of([decide(step, bound) for step in steps])
        yield Verdict(claim.key, tuple(found), outcome, why)


def _unless_missing(outcome: Judgement, why: str, missing: Sequence[str]) -> tuple[Judgement, str]:
    """What was not run may still contradict: without it nothing is supported."""
    if missing and outcome is Judgement.SUPPORTED:
        return Judgement.OPEN, f"{why}; not run: {', '.join(missing)}"
    return outcome, why


def _difference(larger: Finding, smaller: Finding) -> Finding:
    """Return the difference of two independent means; intervals add as their squares do."""
    gap = larger.value - smaller.value
    below = math.hypot(larger.value - larger.low, smaller.high - smaller.value)
    above = math.hypot(larger.high - larger.value, smaller.value - smaller.low)
    return Finding(gap, gap - below, gap + above, larger.over)


def _told(claim: Claim, found: Mapping[str, Finding]) -> str:
    """Write the numbers behind a verdict, each with its label and its interval."""
    parts: list[str] = []
    for label, number in found.items():
        name = f"{label}: " if label else ""
        scale, unit = (100, " %") if claim.percent else (1, "")
        scaled = Finding(scale * number.value, scale * number.low, scale * number.high)
        parts.append(f"{name}{told(scaled, claim.digits)}{unit}")
    (first, *_) = claim.bounds.values()
    if first.relation != "sure":
        return f"{claim.said}: {'; '.join(parts)}"
    (share,) = found.values()
    if math.isnan(share.value):
        return "too few images have such tokens at every shift"
    return f"in {share.value:.0%} of resamples of the images {claim.said}"


def told(found: Finding, digits: int = 3) -> str:
    """Write a number with its interval, or say that it has none."""
    if not math.isfinite(found.value):
        return "undefined"
    text = f"{found.value:.{digits}f} "
    if found.has_interval:
        text += f"[{found.low:.{digits}f}, {found.high:.{digits}f}]"
    else:
        text += "(no interval)"
    return text.replace("-", "−")


def two_modes(numbers: Findings) -> tuple[Judgement, str] | None:
    """Judge a dominant low mode of CDS, a separated high one, the high group smaller."""
    if "gamma" not in numbers:
        return None
    dip, silverman = numbers["dip-p"].value, numbers["silverman-p"].value
    valleys = numbers["valley-found"].value
    why = (
        f"of one mode, dip test p = {dip:.2g}, Silverman p = {silverman:.2g}; a valley in "
        f"{valleys:.0%} of the draws; high-CDS {told(numbers['high'], 0)}, low-CDS "
        f"{told(numbers['low'], 0)}"
    )
    smaller = decide(numbers["gap"], Bound("gap"))
    is_single = min(dip, silverman) >= SIGNIFICANCE and valleys <= ABSENT
    if is_single or smaller is Judgement.CONTRADICTED:
        return Judgement.CONTRADICTED, why
    is_firm = max(dip, silverman) < SIGNIFICANCE and valleys >= FIRM
    return (smaller if is_firm else Judgement.OPEN), why
