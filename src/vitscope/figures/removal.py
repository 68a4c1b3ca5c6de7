"""What is left without a group of features: each variant beside the original, and reliability.

A line is a variant of the tokens, or the random controls of a group together. Its interval is
Student's: over whole searches for one variant, over draws for several controls.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray

from vitscope.figures.style import (
    HIGH,
    INK,
    LOW,
    MUTED,
    add_legend,
    label_axes,
    new_panel,
    say_empty,
)
from vitscope.intervals import MeanInterval, student_interval
from vitscope.probes.results import ORIGINAL, Reliability, TaskResult, ZeroShotSummary
from vitscope.stages.removal_groups import RemovedGroup, RemovedGroups
from vitscope.stages.zeroshot import ZeroShotResult

METRICS = {
    "top1": ("top-1 accuracy", 3),
    "miou": ("mIoU", 3),
    "rmse": ("RMSE in metres", 3),
}
"""Metric of a probe -> its name, and decimals."""

LINE_NAMES = {
    "high": ("high-CDS removed", "random, matched to high-CDS"),
    "low": ("low-CDS removed", "random, matched to low-CDS"),
}
"""Group -> what the lines of its removal and of its controls are called."""

GROUP_LINES: dict[str, tuple[str, str, str]] = {
    "": (INK, "o", "-"),
    "high": (HIGH, "D", "--"),
    "low": (LOW, "s", "-"),
}
"""Group that is removed -> colour, marker and line."""

FEWEST_PREDICTIONS = 10
"""Predictions that a bin needs for a point: the accuracy of a few is chance."""


@dataclass(frozen=True)
class RemovalLine:
    """A variant of the tokens, or the controls of a group together.

    Attributes:
        name: in words.
        of: the group that is removed, or that random features stand in for; nothing: the original.
        is_control: random features rather than the group itself.
        groups: what is removed; none for the original, and where no control matches.
        why_none: said instead of figures.
    """

    name: str
    of: str = ""
    is_control: bool = False
    groups: tuple[RemovedGroup, ...] = ()
    why_none: str = ""

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the variants that it is a mean of."""
        return tuple(group.variant for group in self.groups) if self.of else (ORIGINAL,)

    @property
    def tone(self) -> str:
        """The group's colour on the page, which random features do not have."""
        return "" if self.is_control else self.of


def removal_lines(removed: RemovedGroups) -> tuple[RemovalLine, ...]:
    """Return the lines in order: the original, then each group with its controls under it."""
    found = [RemovalLine("original")]
    for of, (own, random) in LINE_NAMES.items():
        mine = [group for group in removed.groups if group.of == of]
        found += [RemovalLine(own, of, groups=(one,)) for one in mine if not one.is_control]
        controls = tuple(one for one in mine if one.is_control)
        if controls:
            found.append(RemovalLine(random, of, True, controls))
        elif mine and of in removed.unmatched:
            found.append(RemovalLine(random, of, True, why_none=removed.unmatched[of]))
    return tuple(found)


def probe_value(task: TaskResult, line: RemovalLine) -> MeanInterval:
    """Return what probes read off a line's tokens."""
    return _over_draws([_searches(task, variant) for variant in line.variants])


def probe_change(task: TaskResult, line: RemovalLine) -> MeanInterval:
    """Return how far a line lies from the original, search by search: all share their trials.

    Where a search is missing on one side there is no pairing, and no interval.
    """
    before = _searches(task, ORIGINAL)
    per_variant = [_searches(task, variant) for variant in line.variants]
    if any(len(values) != len(before) for values in per_variant):
        return MeanInterval(probe_value(task, line).mean - student_interval(before).mean)
    return _over_draws(
        [[b - a for a, b in zip(before, values, strict=True)] for values in per_variant]
    )


def zero_shot_value(
    found: ZeroShotResult, line: RemovalLine, read: Callable[[ZeroShotSummary], float]
) -> MeanInterval:
    """Return a figure of predictions by text, read off each of a line's variants."""
    return student_interval([read(one) for one in found.variants if one.variant in line.variants])


def _searches(task: TaskResult, variant: str) -> tuple[float, ...]:
    return next((one.values for one in task.variants if one.variant == variant), ())


def _over_draws(values: Sequence[Sequence[float]]) -> MeanInterval:
    """Return the interval over the searches of one variant, or over the means of several draws."""
    if len(values) == 1:
        return student_interval(values[0])
    return student_interval([student_interval(one).mean for one in values])


def plot_reliability(found: ZeroShotResult) -> Figure:
    """Draw accuracy over confidence, with and without each group; below, the share of each bin.

    On the dashed line a prediction is right as often as it is sure.
    """
    panel = new_panel(4.0, rows=2)
    figure, (ax, below) = panel.figure, panel.axes
    ax.get_gridspec().set_height_ratios([3, 1])  # pyright: ignore[reportOptionalMemberAccess]
    label_axes(ax, y="accuracy")
    label_axes(below, x="confidence of the prediction", y="share")
    diagrams = {
        line: one.calibration
        for line in removal_lines(found.removed)
        for one in found.variants
        if not line.is_control and one.variant in line.variants
    }
    if not any(sum(diagram.n) for diagram in diagrams.values()):
        say_empty(ax, "nothing was predicted")
        return figure
    ax.plot([0, 1], [0, 1], color=MUTED, lw=1.0, ls=(0, (4, 3)))
    handles: list[Any] = []
    for line, diagram in diagrams.items():
        colour, marker, style = GROUP_LINES[line.tone]
        n, confidence, accuracy = _points(diagram)
        look: dict[str, Any] = {"color": colour, "ls": style, "lw": 1.4}
        handles += ax.plot(confidence, accuracy, marker=marker, ms=5, **look)
        below.stairs(n / max(n.sum(), 1), np.asarray(diagram.edges), **look)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.02)
    below.set_ylim(bottom=0)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MultipleLocator(0.25))
    add_legend(figure, handles, [line.name for line in diagrams], columns=2)
    return figure


def _points(
    diagram: Reliability,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return predictions a bin, and confidence and accuracy of the bins that have enough."""
    n = np.asarray(diagram.n)
    enough = n >= FEWEST_PREDICTIONS
    return n, np.asarray(diagram.confidence)[enough], np.asarray(diagram.accuracy)[enough]
