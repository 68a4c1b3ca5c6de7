"""Probes of several finished runs, over the size of their backbones: ``vitscope scaling``."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vitscope.errors import ArtifactError, ConfigError
from vitscope.figures.files import save_figure
from vitscope.figures.scaling import STYLES, ScalingLine, plot_scaling, size_text
from vitscope.intervals import MeanInterval
from vitscope.probes.settings import Task
from vitscope.report.numbers import UNDEFINED, with_interval
from vitscope.report.removal import Line, TaskFigures, change_of_task, lines, of_task
from vitscope.report.removal_view import METRICS
from vitscope.stages.removal_tables import read_removal
from vitscope.stages.scaling_plan import TASKS, ScalingPlan, require_several
from vitscope.store.atomic import read_json, write_json
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stage import Stamp, read_stamp

NAME = "scaling"
"""Of the files."""

KINDS = tuple(STYLES)
"""Lines of the figure, the original first."""

NAMES = {
    "original": "original",
    "high": "high-CDS removed",
    "low": "low-CDS removed",
    "random-high": "random, matched to high",
    "random-low": "random, matched to low",
}


@dataclass(frozen=True)
class Measurement:
    """What one kind of tokens has come to on one model.

    Attributes:
        value: over searches, or over draws of random features; NaN ends where there is one.
        change: from the original, search by search.
        n_features: removed.
        energy_share: of the contribution energy of all features.
        why_none: said where nothing was measured; else nothing.
    """

    value: MeanInterval
    change: MeanInterval
    n_features: int
    energy_share: float
    why_none: str


@dataclass(frozen=True)
class ScaledModel:
    """One run's probes of a task.

    Attributes:
        run: its directory.
        name: of its backbone, as its study has it.
        n_parameters: of the backbone; None where they cannot be counted.
        layer: designated block.
        task: what was measured.
        measured: kind of tokens -> what they came to; a group without features is not there.
    """

    run: Path
    name: str
    n_parameters: int | None
    layer: int
    task: TaskFigures
    measured: Mapping[str, Measurement]


@dataclass(frozen=True)
class Scaling:
    """Several models of a family.

    Attributes:
        models: the smallest first, those of unknown size last.
        notes: what a reader must know before comparing.
    """

    models: tuple[ScaledModel, ...]
    notes: tuple[str, ...]


def scaling_result(plan: ScalingPlan, out: Path) -> tuple[Scaling, list[Path]]:
    """Read what all runs found; write the table, then the figure, into ``out``.

    Returns:
        what was found, and the files.
    """
    found = read_scaling(plan.runs, plan.task)
    table = write_scaling(found, out)
    return found, [table, *save_figure(draw_scaling(found), out, NAME)]


def read_scaling(runs: Sequence[Path], task: Task) -> Scaling:
    """Read what the probes of several runs found.

    Raises:
        ConfigError: fewer than two runs, one named twice, or they were probed on other images.
        ArtifactError: a run has no finished probes of the task.
    """
    require_several(runs)
    stamps = [_stamp(RunDirectory(run), task) for run in runs]
    _require_same_images(runs, stamps, task)
    models = [_model(RunDirectory(run), task) for run in runs]
    models.sort(key=lambda model: model.n_parameters or math.inf)
    return Scaling(tuple(models), tuple(_notes(stamps, models)))


def write_scaling(found: Scaling, out: Path) -> Path:
    """Write ``scaling.json``: every figure with its interval, and where it comes from."""
    first = found.models[0].task
    models = [
        {
            "run": str(model.run.absolute()),
            "name": model.name,
            "n_parameters": model.n_parameters,
            "layer": model.layer,
            "n_train": model.task.n_train,
            "n_validation": model.task.n_validation,
            "diverged": model.task.diverged,
            "tokens": {kind: asdict(value) for kind, value in model.measured.items()},
        }
        for model in found.models
    ]
    head = {"task": first.task, "metric": first.metric, "higher_is_better": first.higher_is_better}
    path = out / f"{NAME}.json"
    write_json(path, {**head, "notes": found.notes, "models": models})
    return path


def draw_scaling(found: Scaling) -> Figure:
    """Return the figure; a kind of tokens that no model has is left out."""
    task = found.models[0].task
    none = MeanInterval(math.nan, math.nan, math.nan)
    drawn: list[ScalingLine] = []
    for kind in KINDS:
        rows = [model.measured.get(kind) for model in found.models]
        if all(row is None or math.isnan(row.value.mean) for row in rows) and kind != "original":
            continue
        value, change = (
            np.array([_ends(none if row is None else getattr(row, part)) for row in rows])
            for part in ("value", "change")
        )
        drawn.append(ScalingLine(NAMES[kind], kind, value, change))
    models = [(model.name, model.n_parameters) for model in found.models]
    return plot_scaling(models, drawn, f"{METRICS[task.metric][0]}, {task.task}")


def scaling_lines(found: Scaling) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells of the table as it is printed."""
    shown = [k for k in KINDS if any(k in model.measured for model in found.models)]
    _, digits = METRICS[found.models[0].task.metric]
    cells: list[list[str]] = []
    for model in found.models:
        values = [
            UNDEFINED
            if (one := model.measured.get(kind)) is None
            else with_interval(one.value.mean, one.value.low, one.value.high, digits)
            for kind in shown
        ]
        cells.append([model.name, size_text(model.n_parameters), *values])
    return ["model", "size", *(NAMES[kind] for kind in shown)], cells


def _stamp(run: RunDirectory, task: Task) -> Stamp:
    stamp = read_stamp(run, "probe")
    if stamp is None or task not in stamp.summary["tasks"]:
        raise ArtifactError(
            f"{run.root} has no finished {task} probes; set probes.{task}.train in its study and "
            "run `vitscope run` on it"
        )
    return stamp


def _require_same_images(runs: Sequence[Path], stamps: Sequence[Stamp], task: Task) -> None:
    for split in ("train", "validation"):
        digests = [stamp.inputs.get(f"{task}, {split}") for stamp in stamps]
        for run, digest in zip(runs, digests, strict=True):
            if digest != digests[0]:
                raise ConfigError(
                    f"{run} and {runs[0]} have other {split} images for {task}: their figures "
                    "cannot be compared; give their studies the same"
                )


def _model(run: RunDirectory, task: Task) -> ScaledModel:
    backbone = read_json(run.table("probes")).get("backbone")
    if backbone is None:
        raise ArtifactError(
            f"{run.root} was probed by an earlier vitscope, which did not record the backbone's "
            f"size; delete {run.stamp('probe')} and run its study again"
        )
    figures = read_removal(run, ("probe",))
    assert figures is not None
    (found,) = (one for one in figures.tasks if one.task == task)
    every = lines(figures)
    return ScaledModel(
        run=run.root,
        name=Path(backbone["name"]).name,
        n_parameters=backbone["n_parameters"],
        layer=int(backbone["layer"]),
        task=found,
        measured={_kind(line): _measurement(found, line, every[0]) for line in every},
    )


def _kind(line: Line) -> str:
    return f"random-{line.of}" if line.is_control else line.of or "original"


def _measurement(task: TaskFigures, line: Line, original: Line) -> Measurement:
    return Measurement(
        value=of_task(task, line),
        change=change_of_task(task, line, original),
        n_features=line.n_features,
        energy_share=line.energy_share,
        why_none=line.why_none,
    )


def _ends(value: MeanInterval) -> tuple[float, float, float]:
    return value.mean, value.low, value.high


def _notes(stamps: Sequence[Stamp], models: Sequence[ScaledModel]) -> list[str]:
    """Say what stands between the figures and a fair comparison."""
    notes: list[str] = []
    task = models[0].task.task
    flat = [_flat({k: v for k, v in s.settings.items() if k not in set(TASKS) - {task}})
            for s in stamps]  # fmt: skip
    differing = sorted(
        key for key in set().union(*flat) if len({repr(one.get(key)) for one in flat}) > 1
    )
    if differing:
        notes.append(f"the runs differ in {', '.join(differing)}")
    if any(math.isnan(model.measured["original"].value.low) for model in models):
        notes.append("one search: no intervals; probes.seeds = 3 gives them")
    for model in models:
        notes += [
            f"{model.name}: {NAMES[kind]}: {one.why_none}"
            for kind, one in model.measured.items()
            if one.why_none
        ]
        if model.task.diverged:
            notes.append(f"{model.name}: {model.task.diverged} heads diverged and are left out")
    return notes


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        inner = isinstance(value, Mapping)
        found |= _flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found
