"""A reproduction as a whole: the paper's numbers beside ours, and what a run cannot support."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vitscope.backbones.zoo import ZOO
from vitscope.errors import ArtifactError
from vitscope.paper.assumptions import readings_label
from vitscope.paper.claims import Verdict, judge_claims
from vitscope.paper.findings import Finding, Findings, FinishedRun, truths_of
from vitscope.paper.prices import IMAGENET_SIZES, shape_of
from vitscope.paper.readings import Reading, list_readings
from vitscope.paper.reference import PaperNumber, columns_of, numbers_of
from vitscope.paper.runs import find_runs
from vitscope.paper.studies import is_scenes_model
from vitscope.paper.targets import TARGETS, Target
from vitscope.store.atomic import write_json

NUMBERS_FILE = "numbers.json"
"""Everything the page shows, for a program to read."""

_EVERY = frozenset(TARGETS)
_SCOPE = frozenset(name for name, target in TARGETS.items() if "partition" in target.stages)
_SAE = _SCOPE | {"table6"}
_ATTENTION = frozenset({"table5", "table7", "table9"})
_PROBES = frozenset(name for name, target in TARGETS.items() if target.tasks)

PAPER_RECIPE = (30, 32, 4)
"""K, expansion and tokens per image of the supplement's section A."""

PAPER_PROBES = (100, 5)
"""Epochs and trials of the supplement's section C."""

COMPARED_IMAGES = 1000
"""Of Table 7."""

SYNSET, RELEASE = re.compile(r"n\d{8}"), re.compile(r"ILSVRC2012_")
"""A class folder of ImageNet's, and how the files of its release begin."""


@dataclass(frozen=True)
class Limit:
    """One thing that a run cannot support.

    Attributes:
        text: what is different, and what follows.
        targets: that it concerns.
        bars_comparison: whether a difference from the paper then says nothing of a reproduction.
    """

    text: str
    targets: frozenset[str]
    bars_comparison: bool


def limits_of(run: FinishedRun) -> tuple[Limit, ...]:
    """Return what keeps the numbers of a run from being those of the paper's experiment."""
    rows = (*_limits_of_images(run), *_limits_of_recipe(run))
    return tuple(Limit(text, targets, bars) for holds, targets, bars, text in rows if holds)


def _limits_of_images(run: FinishedRun) -> Iterator[tuple[bool, frozenset[str], bool, str]]:
    """Yield (whether it holds, targets, whether it bars comparison, text)."""
    images, n_known = run.scored_images, IMAGENET_SIZES[1]
    n, compared = len(images), min(run.study.outliers.images, len(images))
    is_imagenet = n > 0 and all(
        SYNSET.fullmatch(image.label or "") or RELEASE.match(image.path.name) for image in images
    )
    yield (
        *(run.model not in ZOO, _EVERY, True),
        f"'{run.model}' is no model of the paper: its numbers stand alone, and a verdict below is "
        "on this model and these images only",
    )
    yield (
        *(run.model in ZOO and not is_imagenet, _EVERY, True),
        "the images are not known for ImageNet's: statistics of other photographs may differ for "
        "that reason alone",
    )
    stated = f"read otherwise than by default: {readings_label(run.readings)}"
    yield bool(run.readings), _EVERY, False, stated
    yield (
        *(0 < n < n_known, _SCOPE, True),
        f"{n:,} images are scored, not {n_known:,}: each feature's strongest images are weaker "
        "ones, so that CDS, γ and both groups shift; counts say little, but an order between "
        "features, or between outlier and other tokens, means something",
    )
    yield (
        *(0 < n < n_known, frozenset({"table6"}), False),
        f"reconstruction is measured on {n:,} images: the interval is wider, the number the same "
        "kind of number",
    )
    yield (
        *(0 < compared < COMPARED_IMAGES, _ATTENTION, False),
        f"attention is compared on {compared:,} images, not {COMPARED_IMAGES:,}: the interval says "
        "how far that carries",
    )


def _limits_of_recipe(run: FinishedRun) -> Iterator[tuple[bool, frozenset[str], bool, str]]:
    """Yield the same of how the SAE and the probes were trained."""
    study, n_train, n_known = run.study, len(run.images("train")), IMAGENET_SIZES[0]
    sae, probes, heads = study.sae, study.probes, study.probes.heads()
    is_own = not is_scenes_model(run.model) and sae.path is None
    is_trained = is_own and run.has("train")
    recipe = (sae.k, sae.expansion, study.activations.tokens_per_image)
    yield (
        *(not is_scenes_model(run.model) and sae.path is not None, _SAE, True),
        "the SAE was brought along: its recipe is its own, and so are the numbers of its "
        "dictionary",
    )
    same = "the SAE is scored on the images that it was trained on"
    yield is_own and study.images.eval is None, _SAE, True, same
    yield (
        *(is_trained and n_train < n_known, _SAE, True),
        f"the SAE is trained on {n_train:,} images, not {n_known:,}: more of its features are "
        "dead, and it reconstructs less",
    )
    other = "K, the expansion or the tokens per image are not the paper's"
    yield is_own and recipe != PAPER_RECIPE, _SAE, True, other
    yield (
        *(is_trained, _SAE, False),
        "how long the paper's SAEs were trained is not stated: FVU and the dictionary hang on it",
    )
    yield (
        *(bool(heads) and (probes.epochs, probes.trials) != PAPER_PROBES, _PROBES, False),
        f"probes are trained for {probes.epochs} epochs, not {PAPER_PROBES[0]}: accuracies are "
        "lower, differences between variants may be",
    )
    yield (
        *(bool(heads) and probes.seeds < 2, _PROBES, False),
        "one search of each probe: differences between variants have no interval, and no verdict "
        "on them is possible",
    )
    is_part = any(head.train_limit for head in heads.values())
    yield is_part, _PROBES, True, "probes see a part of their data sets"


@dataclass(frozen=True)
class ComparedNumber:
    """One number beside the paper's.

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
    truth: Finding | None
    ours: Finding
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
class TargetTable:
    """A target over all runs that serve it.

    Attributes:
        target: the table or figure.
        rows: one per model and number.
        limits: what these runs cannot support, by model.
    """

    target: Target
    rows: tuple[ComparedNumber, ...]
    limits: Mapping[str, tuple[Limit, ...]]


@dataclass(frozen=True)
class Reproduction:
    """What all runs below a folder say.

    Attributes:
        folder: where they lie.
        found: the runs that tables show: one per model, without other readings where there is one.
        others: the runs that show other readings.
        tables: targets with a run, in the paper's order.
        verdicts: on every claim that a run can be asked about.
        readings: the numbers that hang on an assumption.
        limits: what each model's run cannot support.
    """

    folder: Path
    found: tuple[FinishedRun, ...]
    others: tuple[FinishedRun, ...]
    tables: tuple[TargetTable, ...]
    verdicts: tuple[Verdict, ...]
    readings: tuple[Reading, ...]
    limits: Mapping[str, tuple[Limit, ...]]


def gather(folder: Path) -> Reproduction:
    """Read every run below ``folder``.

    Raises:
        ArtifactError: there is none, or a file of one is damaged.
    """
    every = find_runs(folder)
    if not every:
        raise ArtifactError(f"{folder} holds no run of a reproduction")
    best: dict[str, FinishedRun] = {}
    for run in every:  # of each model that with the fewest other readings, the first of equals
        if len(run.readings) < len(best.setdefault(run.model, run).readings):
            best[run.model] = run
    found = tuple(best.values())
    others = tuple(run for run in every if run not in found)
    limits = {run.model: limits_of(run) for run in found}
    truths = {run.model: truths_of(run) for run in found}
    tables = [_compare(target, found, limits, truths) for target in TARGETS.values()]
    return Reproduction(
        folder=folder,
        found=found,
        others=others,
        tables=tuple(table for table in tables if table.limits),
        verdicts=judge_claims(found),
        readings=list_readings(found, others),
        limits=limits,
    )


def _compare(
    target: Target,
    runs: Sequence[FinishedRun],
    limits: Mapping[str, tuple[Limit, ...]],
    truths: Mapping[str, Findings],
) -> TargetTable:
    """Set the numbers of the runs that serve a target beside the paper's, or the truth."""
    rows: list[ComparedNumber] = []
    concerning: dict[str, tuple[Limit, ...]] = {}
    for run in runs:
        if target not in run.targets:
            continue
        known = tuple(limit for limit in limits[run.model] if target.name in limit.targets)
        concerning[run.model] = known
        comparable = not any(limit.bars_comparison for limit in known)
        # the layer is not measured, but set
        ours = {**run.numbers, "layer": Finding(float(shape_of(run.study).layer))}
        printed = numbers_of(target.name, run.model)
        for number in printed or columns_of(target):
            name, paper = number.quantity, number if printed else None
            if name in ours:
                truth = truths[run.model].get(name)
                rows.append(
                    ComparedNumber(
                        run.model, name, number.heading, paper, truth, ours[name], comparable
                    )
                )
    return TargetTable(target, tuple(rows), concerning)


def write_numbers(reproduction: Reproduction) -> Path:
    """Write every comparison, verdict and reading as JSON, and return the file."""
    path = reproduction.folder / NUMBERS_FILE
    write_json(path, to_values(reproduction))
    return path


def to_values(reproduction: Reproduction) -> dict[str, Any]:
    """Return comparisons, verdicts and readings as plain values."""
    return {
        "numbers": [
            {
                "target": table.target.name,
                **asdict(row),
                "difference": row.difference,
                "interval_holds_it": row.agrees,
            }
            for table in reproduction.tables
            for row in table.rows
        ],
        "verdicts": [asdict(verdict) for verdict in reproduction.verdicts],
        "readings": [asdict(reading) for reading in reproduction.readings],
        "limits": {
            model: [limit.text for limit in limits] for model, limits in reproduction.limits.items()
        },
    }
