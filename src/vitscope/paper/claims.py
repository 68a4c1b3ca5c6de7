"""A qualitative claim of the paper, and how a verdict on it is reached."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from vitscope.paper.findings import Findings
from vitscope.paper.measured import Measured
from vitscope.paper.runs import FinishedRun


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


@dataclass(frozen=True)
class Found:
    """A run with its numbers."""

    run: FinishedRun
    numbers: Findings


Judge = Callable[[Sequence[Found]], tuple[Verdict, ...]]
"""From the runs without other readings to verdicts; none where no run has what it looks at."""


@dataclass(frozen=True)
class Claim:
    """A claim.

    Attributes:
        key: its name.
        text: what the paper says.
        source: where.
        rule: how a verdict is reached, with every bound.
        targets: tables and figures that it belongs to.
        judge: the rule.
    """

    key: str
    text: str
    source: str
    rule: str
    targets: tuple[str, ...]
    judge: Judge


def decide(found: Measured, above: float) -> Outcome:
    """Return whether a number lies above a bound, with its whole interval on one side.

    A number without an interval decides nothing.
    """
    if not found.has_interval:
        return Outcome.OPEN
    if found.low > above:
        return Outcome.SUPPORTED
    return Outcome.CONTRADICTED if found.high < above else Outcome.OPEN


def all_of(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcome of a claim that holds when every part does."""
    if Outcome.CONTRADICTED in outcomes:
        return Outcome.CONTRADICTED
    if outcomes and all(outcome is Outcome.SUPPORTED for outcome in outcomes):
        return Outcome.SUPPORTED
    return Outcome.OPEN


def of_chance(share: float) -> Outcome:
    """Return the outcome of an event that holds in ``share`` of the resamples."""
    if share >= SURE:
        return Outcome.SUPPORTED
    return Outcome.CONTRADICTED if share <= 1 - SURE else Outcome.OPEN


SURE = 0.95
"""Share of resamples in which an event must hold, or must not."""


def told(found: Measured, digits: int = 3) -> str:
    """Write a number with its interval, or say that it has none."""
    if not math.isfinite(found.value):
        return "undefined"
    if not found.has_interval:
        return f"{found.value:.{digits}f} (no interval)".replace("-", "−")
    text = f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"
    return text.replace("-", "−")
