"""The paper's qualitative claims, each a row of numbers and bounds; every run is judged by all."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Literal

from vitscope.paper.findings import PEAK_SHIFTS, Finding, Findings, FinishedRun, compared_shifts
from vitscope.paper.targets import families

MUCH_MORE = 1.5
"""D̄_out over D̄_non from which «far more» is said; the paper's smallest is 1.9."""

STEEP = 1.5
"""awCDS of outlier tokens over that of median ones from which the rise is called steep."""

MUCH = 0.05
"""Share of the original's figure: a loss beyond is much, a change within it is little. In the
paper's tables the least loss without low-CDS is 7 %, the largest change without high-CDS 3.4 %."""

SURE = 0.95
"""Share of resamples in which an event must hold, or must not."""

SIGNIFICANT = 0.05
"""Of the tests of one mode."""

FIRM, ABSENT = 0.9, 0.1
"""Share of bootstrap draws with a valley from which it is there, and below which it is not."""

NO_OUTLIERS = "the norms have no second mode, so that nothing is an outlier here: τ is a percentile"


class Outcome(StrEnum):
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
    outcome: Outcome
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
        bounds: by the label under which a number is told. A bound whose number a run lacks leaves
            the claim open unless another contradicts it.
        digits: of the numbers as told.
        percent: whether they are told in per cent.
        on_outliers: whether it is about outlier tokens: a model without any says nothing.
        over: what is judged: each run alone, every size of a family, or the steps from each size
            to the next.
        beside: told in brackets after the numbers.
        judge: a rule that bounds cannot state, in their place; None where a run lacks its numbers.
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
    over: Literal["run", "sizes", "steps"] = "run"
    beside: Callable[[FinishedRun], str] | None = None
    judge: Callable[[Findings], tuple[Outcome, str] | None] | None = None


def judge_claims(runs: Sequence[FinishedRun]) -> tuple[Verdict, ...]:
    """Return a verdict for every claim and every run, or family, that has what it looks at."""
    return tuple(verdict for claim in CLAIMS for verdict in verdicts_on(claim, runs))


def verdicts_on(claim: Claim, runs: Sequence[FinishedRun]) -> Iterator[Verdict]:
    """Yield the verdicts on one claim."""
    if claim.over != "run":
        yield from _of_families(claim, runs)
        return
    for run in runs:
        judged = claim.judge(run.numbers) if claim.judge else _of_run(claim, run)
        if judged is not None:
            yield Verdict(claim.key, (run.model,), *judged)


def decide(found: Finding, bound: Bound) -> Outcome:
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
        return Outcome.OPEN
    return Outcome.SUPPORTED if keeps else Outcome.CONTRADICTED if breaks else Outcome.OPEN


def all_of(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcome of a claim that holds when every part does."""
    if Outcome.CONTRADICTED in outcomes:
        return Outcome.CONTRADICTED
    if outcomes and all(outcome is Outcome.SUPPORTED for outcome in outcomes):
        return Outcome.SUPPORTED
    return Outcome.OPEN


def _of_run(claim: Claim, run: FinishedRun) -> tuple[Outcome, str] | None:
    bounds: dict[str, Bound] = {}
    for label, bound in claim.bounds.items():
        for shift in compared_shifts(run.numbers) if "*" in bound.quantity else ("",):
            quantity = bound.quantity.replace("*", str(shift))
            bounds[label.replace("*", str(shift))] = Bound(quantity, bound.relation, bound.value)
    missing = [label for label, bound in bounds.items() if bound.quantity not in run.numbers]
    found = {
        label: (run.numbers[bound.quantity], bound)
        for label, bound in bounds.items()
        if label not in missing
    }
    if not found:
        return None
    why = _told(claim, {label: number for label, (number, _) in found.items()})
    if claim.beside is not None:
        why = f"{why} ({claim.beside(run)})"
    second_mode = run.numbers.get("second-mode")
    if claim.on_outliers and second_mode is not None and not second_mode.value:
        return Outcome.OPEN, f"{NO_OUTLIERS}; {why}"
    outcome = all_of([decide(number, bound) for number, bound in found.values()])
    return _unless_missing(outcome, why, missing)


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
            outcome = Outcome.OPEN
            why = f"a trend over sizes needs every size; not run: {', '.join(missing)}; {why}"
        else:
            steps = [_difference(b, a) for a, b in pairwise(found.values())]
            outcome = all_of([decide(step, bound) for step in steps])
        yield Verdict(claim.key, tuple(found), outcome, why)


def _unless_missing(outcome: Outcome, why: str, missing: Sequence[str]) -> tuple[Outcome, str]:
    """What was not run may still contradict: without it nothing is supported."""
    if missing and outcome is Outcome.SUPPORTED:
        return Outcome.OPEN, f"{why}; not run: {', '.join(missing)}"
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


def two_modes(numbers: Findings) -> tuple[Outcome, str] | None:
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
    is_single = min(dip, silverman) >= SIGNIFICANT and valleys <= ABSENT
    if is_single or smaller is Outcome.CONTRADICTED:
        return Outcome.CONTRADICTED, why
    is_firm = max(dip, silverman) < SIGNIFICANT and valleys >= FIRM
    return (smaller if is_firm else Outcome.OPEN), why


def _map(run: FinishedRun) -> str:
    return f"attention = {run.study.outliers.attention}"


def _course(group: str) -> Callable[[FinishedRun], str]:
    """Tell mean EMD over the shifts, and which map was compared."""

    def tell(run: FinishedRun) -> str:
        shifts = compared_shifts(run.numbers)
        means = (f"{run.numbers[f'emd.{group}.{s}'].value:.2f}" for s in shifts)
        return f"s = {', '.join(map(str, shifts))}: {', '.join(means)} patches; {_map(run)}"

    return tell


def _awcds_ends(run: FinishedRun) -> str:
    ends = (run.numbers[f"awcds.{name}"].value for name in ("outlier", "middle"))
    return " over ".join(f"{end:.3f}" for end in ends)


_TABLE_3 = "main paper, Table 3"
_EVERY_SIZE = "A family whose sizes were not all run supports nothing."

CLAIMS: tuple[Claim, ...] = (
    Claim(
        key="outliers-move-more",
        text="Attention of outlier tokens moves far more between shifted views than that of "
        "others.",
        source="supplement, D.1 and Table 7; E and Table 9",
        targets=("table7", "table9"),
        rule=f"The 95 % interval of D̄_out / D̄_non lies above {MUCH_MORE} at every shift compared: "
        "supported; below it at one: contradicted. The bound is ours: the paper's smallest ratio "
        "is 1.9.",
        said="D̄_out / D̄_non",
        bounds={"s = *": Bound("emd.ratio.*", "above", MUCH_MORE)},
        on_outliers=True,
        beside=_map,
    ),
    Claim(
        key="outliers-peak",
        text="The instability of outlier tokens peaks around s = 3 and s = 4.",
        source="supplement, E.2 and Table 9",
        targets=("table9",),
        rule="Images are drawn anew with all their shifts; the largest mean is at 3 or 4 in "
        f"{SURE:.0%} of the draws: supported; in {1 - SURE:.0%} or fewer: contradicted.",
        said=f"the largest is at s = {' or '.join(map(str, PEAK_SHIFTS))}",
        bounds={"": Bound("emd.peak", "sure", SURE)},
        on_outliers=True,
        beside=_course("out"),
    ),
    Claim(
        key="others-rise",
        text="The instability of other tokens rises with s.",
        source="supplement, E.2 and Table 9",
        targets=("table9",),
        rule=f"In {SURE:.0%} of the same draws every step from one shift to the next rises: "
        f"supported; in {1 - SURE:.0%} or fewer: contradicted.",
        said="every step rises",
        bounds={"": Bound("emd.rise", "sure", SURE)},
        beside=_course("non"),
    ),
    Claim(
        key="awcds-rises",
        text="awCDS rises steeply for outlier tokens.",
        source="supplement, D.1 and Figure 7",
        targets=("figure7",),
        rule=f"Mean awCDS of the bins above τ is more than {STEEP} times that of the 40th to 60th "
        "percentile, with ends of the bins' intervals set against each other: supported; less: "
        "contradicted.",
        said="awCDS of the bins above τ over that of the 40th to 60th percentile",
        bounds={"": Bound("awcds.ratio", "above", STEEP)},
        on_outliers=True,
        beside=_awcds_ends,
    ),
    Claim(
        key="two-modes",
        text="CDS has a dominant low mode and a separated high one; the high group is smaller.",
        source="supplement, A.1, D.1, Table 4 and Figure 6",
        targets=("table4", "figure6"),
        rule=f"The dip test and Silverman's reject one mode (p < {SIGNIFICANT}), a valley is there "
        f"in {FIRM:.0%} of bootstrap draws, and low-CDS features are more at both ends of γ's "
        "interval: supported. The high group is larger at both ends, or neither test rejects and "
        f"at most {ABSENT:.0%} of the draws have a valley: contradicted.",
        judge=two_modes,
    ),
    Claim(
        key="l0-lower",
        text="Outlier tokens have fewer active features than tokens on average.",
        source="supplement, Table 6",
        targets=("table6",),
        rule="The 95 % interval (jackknife over chunks of images) of L0 on outliers less L0 on all "
        "lies below 0: supported; above: contradicted.",
        said="L0 on outliers less L0 on all",
        bounds={"": Bound("l0.gap", "below")},
        on_outliers=True,
    ),
    Claim(
        key="high-removal-improves",
        text="Removing high-CDS features improves ImageNet accuracy at every size.",
        source=f"supplement, D.2 and Figure 8; {_TABLE_3}",
        targets=("table3", "figure8"),
        rule="The 95 % interval of the change, search by search, lies above 0 at every size: "
        f"supported; below 0 at one: contradicted. {_EVERY_SIZE}",
        said="change of top-1 without high-CDS features",
        bounds={"": Bound("classification.high.change")},
        digits=4,
        over="sizes",
    ),
    Claim(
        key="low-loss-shrinks",
        text="What removing low-CDS features costs in accuracy shrinks as models grow.",
        source="supplement, D.2 and Figure 8",
        targets=("figure8",),
        rule="From each size to the next the 95 % interval of the difference of losses lies on the "
        f"shrinking side: supported; on the other at one step: contradicted. {_EVERY_SIZE}",
        said="change of top-1 without low-CDS features",
        bounds={"": Bound("classification.low.change")},
        digits=4,
        over="steps",
    ),
    Claim(
        key="low-removal-hurts-dense",
        text="Removing low-CDS features hurts segmentation and depth much.",
        source=f"supplement, D.2 and Table 8; {_TABLE_3}",
        targets=("table3", "table8"),
        rule=f"Both lose more than {MUCH:.0%} of the original's figure, with the whole 95 % "
        "interval: supported; one loses less: contradicted. The bound is ours.",
        said="change of the original's figure without low-CDS features",
        bounds={
            "segmentation": Bound("segmentation.low.share", "below", -MUCH),
            "depth": Bound("depth.low.share", "above", MUCH),  # an error: it rises
        },
        digits=1,
        percent=True,
    ),
    Claim(
        key="high-removal-spares-dense",
        text="Removing high-CDS features changes segmentation and depth little.",
        source=f"supplement, D.2 and Table 8; {_TABLE_3}",
        targets=("table3", "table8"),
        rule=f"Both change by less than {MUCH:.0%} either way, with the whole 95 % interval: "
        "supported; one changes by more: contradicted. The bound is ours.",
        said="change of the original's figure without high-CDS features",
        bounds={
            "segmentation": Bound("segmentation.high.share", "within", MUCH),
            "depth": Bound("depth.high.share", "within", MUCH),
        },
        digits=1,
        percent=True,
    ),
)
"""In the order of the paper's figures."""
