"""What each kind of feature does: the figures of probes and zero-shot, line by line."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vitscope.intervals import MeanInterval, student_interval
from vitscope.probes.calibration import Reliability
from vitscope.probes.features import ORIGINAL
from vitscope.probes.zero_shot import ZeroShotSummary

NAMES = {
    "high": ("high-CDS removed", "random, matched to high-CDS"),
    "low": ("low-CDS removed", "random, matched to low-CDS"),
}
"""Group -> what the lines of its removal and of its controls are called."""


@dataclass(frozen=True)
class VariantGroup:
    """What one variant of the tokens lacks.

    Attributes:
        variant: its name.
        of: the group, or that which it stands in for.
        n_features: how many are removed.
        energy_share: their share of the contribution energy of all features.
        rate_share: their share of all firings.
        is_control: random features rather than the group itself.
    """

    variant: str
    of: str
    n_features: int
    energy_share: float
    rate_share: float
    is_control: bool


@dataclass(frozen=True)
class TaskFigures:
    """The probes of one task.

    Attributes:
        task: its name.
        metric: what is reported.
        higher_is_better: which way it improves.
        n_train: images that heads learn from.
        n_validation: images that they are scored on.
        values: variant -> the best trial of every search.
        diverged: heads that are left out.
    """

    task: str
    metric: str
    higher_is_better: bool
    n_train: int
    n_validation: int
    values: Mapping[str, tuple[float, ...]]
    diverged: int


@dataclass(frozen=True)
class ZeroShotFigures:
    """Predictions by text.

    Attributes:
        n_images: predicted.
        n_classes: to choose from.
        variants: variant -> its summary, the original first.
    """

    n_images: int
    n_classes: int
    variants: Mapping[str, ZeroShotSummary]


@dataclass(frozen=True)
class RemovalFigures:
    """All that the section shows.

    Attributes:
        groups: what is removed, in order.
        unmatched: group -> why no control matches it.
        tasks: the probes; none where they have not run.
        zero_shot: None where it has not run.
    """

    groups: tuple[VariantGroup, ...]
    unmatched: Mapping[str, str]
    tasks: tuple[TaskFigures, ...] = ()
    zero_shot: ZeroShotFigures | None = None


@dataclass(frozen=True)
class Line:
    """One line of both tables: a variant, or the controls of a group together.

    Attributes:
        name: in words.
        of: the group that is removed, or that random features stand in for; nothing: the original.
        is_control: random features rather than the group itself.
        variants: those it is a mean of; none where nothing matches.
        why_none: said instead of figures.
        n_features: removed, of the first variant.
        energy_share: of it.
        rate_share: of it.
    """

    name: str
    of: str
    is_control: bool
    variants: tuple[str, ...]
    why_none: str = ""
    n_features: int = 0
    energy_share: float = 0.0
    rate_share: float = 0.0

    @property
    def tone(self) -> str:
        """The group's colour on the page, which random features do not have."""
        return "" if self.is_control else self.of


def lines(figures: RemovalFigures) -> tuple[Line, ...]:
    """Return the lines in order: the original, then each group with its controls under it."""
    found = [Line("original", "", False, (ORIGINAL,))]
    for of, (own, random) in NAMES.items():
        removed = [g for g in figures.groups if g.of == of and not g.is_control]
        controls = [g for g in figures.groups if g.of == of and g.is_control]
        found += [_line(own, [group]) for group in removed]
        if controls:
            found.append(_line(random, controls))
        elif removed and of in figures.unmatched:
            found.append(Line(random, of, True, (), figures.unmatched[of]))
    return tuple(found)


def of_task(task: TaskFigures, line: Line) -> MeanInterval:
    """Return a line's figure: over searches for one variant, over draws for several controls."""
    per_variant = [task.values.get(variant, ()) for variant in line.variants]
    if len(per_variant) == 1:
        return student_interval(per_variant[0])
    return student_interval([student_interval(values).mean for values in per_variant])


def change_of_task(task: TaskFigures, line: Line, original: Line) -> MeanInterval:
    """Return how far a line lies from the original, search by search: all share their trials.

    Where a search is missing on one side there is no pairing, and no interval.
    """
    before = task.values.get(original.variants[0], ())
    per_variant = [task.values.get(variant, ()) for variant in line.variants]
    if any(len(values) != len(before) for values in per_variant):
        change = of_task(task, line).mean - student_interval(before).mean
        return MeanInterval(change)
    pairs = [[b - a for a, b in zip(before, values, strict=True)] for values in per_variant]
    if len(pairs) == 1:
        return student_interval(pairs[0])
    return student_interval([student_interval(differences).mean for differences in pairs])


def of_zero_shot(
    figures: ZeroShotFigures, line: Line, read: Callable[[ZeroShotSummary], float]
) -> MeanInterval:
    """Return a line's figure, read off each of its variants."""
    return student_interval([read(figures.variants[variant]) for variant in line.variants])


def reliability_lines(figures: RemovalFigures) -> list[tuple[str, str, Reliability]]:
    """Return (name, tone, diagram) of the original and of both groups' removal."""
    assert figures.zero_shot is not None
    found = [("original", "", figures.zero_shot.variants[ORIGINAL].calibration)]
    for group in figures.groups:
        if not group.is_control:
            summary = figures.zero_shot.variants[group.variant]
            found.append((NAMES[group.of][0], group.of, summary.calibration))
    return found


def _line(name: str, groups: Sequence[VariantGroup]) -> Line:
    first = groups[0]
    return Line(
        name=name,
        of=first.of,
        is_control=first.is_control,
        variants=tuple(group.variant for group in groups),
        n_features=first.n_features,
        energy_share=first.energy_share,
        rate_share=first.rate_share,
    )
