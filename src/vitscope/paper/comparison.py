"""A reproduction as a whole: the paper's numbers beside ours, and what a run cannot support."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vitscope.backbones.zoo import PAPER_ZOO
from vitscope.errors import ArtifactError
from vitscope.paper.assumptions import readings_label
from vitscope.paper.claims import Verdict, judge_claims
from vitscope.paper.findings import Finding, Findings, FinishedRun, truths_of
from vitscope.paper.prices import IMAGENET_SIZES, shape_of
from vitscope.paper.readings import PaperReading, list_readings
from vitscope.paper.reference import PaperNumber, columns_of, numbers_of, read_rows
from vitscope.paper.runs import find_runs
from vitscope.paper.studies import is_scenes_model
from vitscope.paper.targets import TARGETS, Target
from vitscope.store.atomic import write_json

NUMBERS_FILE = "numbers.json"
"""Everything the page shows, for a program to read."""

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
    study, sae, probes = run.study, run.study.sae, run.study.probes
    images = run.run.image_refs if run.run.has("images") else ()
    n_trained = len(run.run.verified("train").usable) if images else 0
    all_trained, all_scored = IMAGENET_SIZES
    n, compared = len(images), min(study.outliers.images, len(images))
    in_paper, heads = run.model in PAPER_ZOO, probes.heads().values()
    is_imagenet = bool(images) and all(
        SYNSET.fullmatch(image.label or "") or RELEASE.match(image.path.name) for image in images
    )
    needs_sae = not is_scenes_model(run.model)
    is_own = needs_sae and sae.path is None
    is_trained = is_own and run.run.has("train")
    holds = {
        "no-model-of-the-paper": not in_paper,
        "other-images": in_paper and not is_imagenet,
        "other-readings": bool(run.readings),
        "fewer-scored": 0 < n < all_scored,
        "fewer-reconstructed": 0 < n < all_scored,
        "fewer-compared": 0 < compared < COMPARED_IMAGES,
        "own-sae": needs_sae and not is_own,
        "same-images": is_own and study.images.eval is None,
        "fewer-trained": is_trained and n_trained < all_trained,
        "other-recipe": is_own
        and (sae.k, sae.expansion, study.activations.tokens_per_image) != PAPER_RECIPE,
        "length-not-stated": is_trained,
        "other-probe-training": bool(heads) and (probes.epochs, probes.trials) != PAPER_PROBES,
        "one-search": bool(heads) and probes.seeds < 2,
        "part-of-labels": any(head.train_limit for head in heads),
    }
    facts = {
        "model": run.model,
        "readings": readings_label(run.readings),
        **{"scored": n, "trained": n_trained, "compared": compared, "epochs": probes.epochs},
        **{"all_scored": all_scored, "all_trained": all_trained},
        **{"all_compared": COMPARED_IMAGES, "all_epochs": PAPER_PROBES[0]},
    }
    return tuple(
        Limit(row["text"].format(**facts), _TARGETS_OF[row["targets"]], row.get("bars", False))
        for key, row in read_rows("limits.toml").items()
        if holds[key]
    )


_SCOPE = frozenset(name for name, target in TARGETS.items() if "partition" in target.stages)
_TARGETS_OF = {
    "every": frozenset(TARGETS),
    "scope": _SCOPE,
    "sae": _SCOPE | {"table6"},
    "reconstruction": frozenset({"table6"}),
    "attention": frozenset({"table5", "table7", "table9"}),
    "probes": frozenset(name for name, target in TARGETS.items() if target.tasks),
}


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
    readings: tuple[PaperReading, ...]
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
