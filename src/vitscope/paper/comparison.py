"""The paper's numbers beside ours: the difference, and whether our interval holds the paper's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vitscope.paper.findings import Findings
from vitscope.paper.limits import Limit, limits_of
from vitscope.paper.measured import Measured
from vitscope.paper.reference import PaperNumber, Reference
from vitscope.paper.runs import FinishedRun
from vitscope.paper.shape import shape_of
from vitscope.paper.targets import Target

TASKS = {"ImageNet": "classification", "ADE20K": "segmentation", "NYUd": "depth"}
"""The paper's data sets and what is probed on them."""


@dataclass(frozen=True)
class Row:
    """One number.

    Attributes:
        model: the run's backbone.
        quantity: what it is.
        heading: of its column in the paper.
        paper: the printed number; None where the paper has none for this model.
        truth: what must come out, where that is known: the planted backbone.
        ours: measured.
        comparable: whether a difference from the paper means anything; else ``limits`` say why not.
    """

    model: str
    quantity: str
    heading: str
    paper: PaperNumber | None
    truth: Measured | None
    ours: Measured
    comparable: bool

    @property
    def expected(self) -> float:
        """The paper's number, or the truth; NaN without either."""
        if self.paper is not None:
            return self.paper.value
        return math.nan if self.truth is None else self.truth.value

    @property
    def difference(self) -> float:
        """Ours less the paper's, or less the truth."""
        return self.ours.value - self.expected

    @property
    def agrees(self) -> bool | None:
        """Whether our interval, widened by what is not known of it, holds it; None without one."""
        if not (self.ours.has_interval and math.isfinite(self.expected)):
            return None
        slack = 0.0 if self.paper is None else self.paper.rounding
        if self.truth is not None and self.truth.has_interval:  # itself drawn
            slack = (self.truth.high - self.truth.low) / 2
        return bool(self.ours.low - slack <= self.expected <= self.ours.high + slack)


@dataclass(frozen=True)
class Table:
    """A target over all runs that serve it.

    Attributes:
        target: the table or figure.
        rows: one per model and number.
        limits: what these runs cannot support, by model.
    """

    target: Target
    rows: tuple[Row, ...]
    limits: Mapping[str, tuple[Limit, ...]]


def compare(
    target: Target,
    runs: Sequence[tuple[FinishedRun, Findings]],
    reference: Reference,
    truths: Mapping[str, Findings],
) -> Table:
    """Set the numbers of ``runs`` beside the paper's.

    Args:
        target: the table or figure.
        runs: those without other readings, each with its numbers.
        reference: the paper's numbers.
        truths: model -> quantity -> what must come out.
    """
    rows: list[Row] = []
    limits: dict[str, tuple[Limit, ...]] = {}
    for run, found in runs:
        if target.name not in {served.name for served in run.targets}:
            continue
        known = tuple(limit for limit in limits_of(run) if limit.concerns(target.name))
        limits[run.model] = known
        numbers = reference.of(target.name, run.model)
        columns = numbers or columns_of(target, reference)
        for number in columns:
            ours = {**found, **_settings(run)}.get(number.quantity)
            if ours is None:
                continue
            rows.append(
                Row(
                    model=run.model,
                    quantity=number.quantity,
                    heading=number.heading,
                    paper=number if numbers else None,
                    truth=truths.get(run.model, {}).get(number.quantity),
                    ours=ours,
                    comparable=not any(limit.bars_comparison for limit in known),
                )
            )
    return Table(target, tuple(rows), limits)


def columns_of(target: Target, reference: Reference) -> tuple[PaperNumber, ...]:
    """Return the columns of a target, for models that the paper does not show there."""
    source = "table3" if target.name == "figure8" else target.name
    first: dict[str, PaperNumber] = {}
    for number in reference.of(source):
        task = number.quantity.partition(".")[0]
        if target.name != "figure8" or task in target.tasks:
            first.setdefault(
                number.quantity,
                replace(number, target=target.name, heading=_without_set(number.heading)),
            )
    return tuple(first.values())


def _without_set(heading: str) -> str:
    """Name the task where the paper names its data set: other models may be probed on others."""
    for name, task in TASKS.items():
        heading = heading.replace(name, task)
    return heading


def _settings(run: FinishedRun) -> dict[str, Measured]:
    """Return what a run does not measure but is set to."""
    return {"layer": Measured(float(shape_of(run.study).layer))}
