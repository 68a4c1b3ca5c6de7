"""What probes read with and without each group, over the sizes of a family (the paper's Figure 8).

Several finished runs are compared; studies among them are run first (``vitscope scaling``). In the
figure the lower panel shows the same as differences from the original, whose intervals are
narrower: all variants of a model share their images, batches and trials.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitscope.errors import ArtifactError, ConfigError
from vitscope.figures.files import save_figure
from vitscope.figures.numbers import UNDEFINED, with_interval
from vitscope.figures.removal import METRICS, probe_change, probe_value, removal_lines
from vitscope.figures.style import (
    BULK,
    HIGH,
    INK,
    LOW,
    MUTED,
    add_legend,
    label_axes,
    literal,
    new_panel,
    say_empty,
)
from vitscope.intervals import MeanInterval
from vitscope.probes.results import TaskResult
from vitscope.probes.settings import Task
from vitscope.run import Run
from vitscope.store.atomic import write_json
from vitscope.store.stamp import Stamp
from vitscope.study import Study, folder_name, load_study, load_study_for_each

SCALING = "scaling"
"""Name of the files."""

PROBE_TASKS: tuple[Task, ...] = get_args(Task)

TOKEN_STYLES: dict[str, tuple[str, str, str, object]] = {
    "original": ("original", INK, "o", "-"),
    "high": ("high-CDS removed", HIGH, "D", (0, (4, 2))),
    "low": ("low-CDS removed", LOW, "s", "-"),
    "random-high": ("random, matched to high", BULK, "^", (0, (1.2, 1.6))),
    "random-low": ("random, matched to low", MUTED, "v", (0, (6, 2, 1.2, 2))),
}
"""Kind of tokens -> name, colour, marker and dashes, so that colour alone decides nothing."""

MODEL_NUDGE = 0.05
"""Sideways distance of neighbouring lines, in models, so that close bars do not cover."""

MARGIN = 0.35
"""Room left of the first model and right of the last, in models."""

UNITS = ((1e9, "B"), (1e6, "M"), (1e3, "k"))

ROUNDS_UP = 0.9995
"""Of a unit: from there on it is written as 1.0 of it, never as 1000 of the next."""


@dataclass(frozen=True)
class ScalingPlan:
    """What is to be compared.

    Attributes:
        task: of the probes.
        runs: directories, in the order given.
        to_run: studies that are run first, and where.
    """

    task: Task
    runs: tuple[Path, ...]
    to_run: tuple[tuple[Study, Path], ...]


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
        tokens: kind of tokens -> what they came to; a group without features is not there.
    """

    run: Path
    name: str
    n_parameters: int | None
    layer: int
    task: TaskResult
    tokens: Mapping[str, Measurement]

    @property
    def diverged(self) -> int:
        """Heads that are left out."""
        return sum(len(one.diverged) for one in self.task.variants)


@dataclass(frozen=True)
class Scaling:
    """Several models of a family.

    Attributes:
        models: the smallest first, those of unknown size last.
        notes: what a reader must know before comparing.
    """

    models: tuple[ScaledModel, ...]
    notes: tuple[str, ...]


def scaling_plan(sources: Sequence[Path], models: str | None, task: str, out: Path) -> ScalingPlan:
    """Tell runs from studies; refuse what could not be compared before anything is run.

    Args:
        sources: run directories and study files.
        models: names of backbones with commas between, for a single study; None: as it says.
        task: of the probes.
        out: studies are run in folders below it.

    Raises:
        ConfigError: no such task; models for several sources; a study without the task's images.
    """
    if task not in PROBE_TASKS:
        raise ConfigError(f"no task '{task}'; there are {', '.join(PROBE_TASKS)}")
    if models is not None and (len(sources) != 1 or sources[0].is_dir()):
        raise ConfigError("--models takes one study file, which is run with each of them")
    runs: list[Path] = []
    to_run: list[tuple[Study, Path]] = []
    for source in sources:
        if source.is_dir():
            runs.append(source)
            continue
        names = [name.strip() for name in (models or "").split(",") if name.strip()]
        for study in load_study_for_each(source, names) if names else [load_study(source)]:
            if task not in study.probes.heads():
                raise ConfigError(f"{source} names no images: set probes.{task}.train in it")
            to_run.append((study, out / folder_name(study)))
            runs.append(out / folder_name(study))
    _require_several(runs)
    return ScalingPlan(task, tuple(runs), tuple(to_run))


def scaling_result(plan: ScalingPlan, out: Path) -> tuple[Scaling, list[Path]]:
    """Read what all runs found; write the table, then the figure, into ``out``.

    Returns:
        what was found, and the files.
    """
    found = read_scaling([Run(run) for run in plan.runs], plan.task)
    return found, [_write_table(found, out), *save_figure(plot_scaling(found), out, SCALING)]


def read_scaling(runs: Sequence[Run], task: Task) -> Scaling:
    """Read what the probes of several runs found.

    Raises:
        ConfigError: fewer than two runs, one named twice, or they were probed on other images.
        ArtifactError: a run has no finished probes of the task.
    """
    _require_several([run.root for run in runs])
    models = sorted(
        (_scaled_model(run, task) for run in runs), key=lambda one: one.n_parameters or math.inf
    )
    stamps = [run.stamp("probe") for run in runs]
    for split in ("train", "validation"):
        images = [stamp.inputs.get(f"{task}, {split}") for stamp in stamps]
        for run, digest in zip(runs, images, strict=True):
            if digest != images[0]:
                raise ConfigError(
                    f"{run.root} and {runs[0].root} have other {split} images for {task}: their "
                    "figures cannot be compared; give their studies the same"
                )
    return Scaling(tuple(models), tuple(_notes(stamps, models)))


def _require_several(runs: Sequence[Path]) -> None:
    if len({run.resolve() for run in runs}) < max(len(runs), 2):
        raise ConfigError("scaling needs two different runs or more")


def _scaled_model(run: Run, task: Task) -> ScaledModel:
    probes = run.probes if run.has("probe") else None
    found = next((one for one in probes.tasks if one.task == task), None) if probes else None
    if probes is None or found is None:
        raise ArtifactError(
            f"{run.root} has no finished {task} probes; set probes.{task}.train in its study and "
            "run `vitscope run` on it"
        )
    tokens: dict[str, Measurement] = {}
    for line in removal_lines(probes.removed):
        kind = f"random-{line.of}" if line.is_control else line.of or "original"
        first = line.groups[0] if line.groups else None
        tokens[kind] = Measurement(
            value=probe_value(found, line),
            change=probe_change(found, line),
            n_features=first.n_features if first else 0,
            energy_share=first.energy_share if first else 0.0,
            why_none=line.why_none,
        )
    facts, name = run.backbone_facts, Path(run.study.backbone.name).name
    return ScaledModel(run.root, name, facts.n_parameters, facts.site.layer, found, tokens)


def _notes(stamps: Sequence[Stamp], models: Sequence[ScaledModel]) -> list[str]:
    """Say what stands between the figures and a fair comparison."""
    notes: list[str] = []
    others = set(PROBE_TASKS) - {models[0].task.task}
    flat = [_flat({k: v for k, v in s.settings.items() if k not in others}) for s in stamps]
    differing = sorted(
        key for key in set().union(*flat) if len({repr(one.get(key)) for one in flat}) > 1
    )
    if differing:
        notes.append(f"the runs differ in {', '.join(differing)}")
    if any(math.isnan(model.tokens["original"].value.low) for model in models):
        notes.append("one search: no intervals; probes.seeds = 3 gives them")
    for model in models:
        notes += [
            f"{model.name}: {TOKEN_STYLES[kind][0]}: {one.why_none}"
            for kind, one in model.tokens.items()
            if one.why_none
        ]
        if model.diverged:
            notes.append(f"{model.name}: {model.diverged} heads diverged and are left out")
    return notes


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        inner = isinstance(value, Mapping)
        found |= _flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


def _write_table(found: Scaling, out: Path) -> Path:
    """Write ``scaling.json``: every figure with its interval, and where it comes from."""
    task = found.models[0].task
    models = [
        {
            "run": str(model.run),
            "name": model.name,
            "n_parameters": model.n_parameters,
            "layer": model.layer,
            "n_train": model.task.n_train,
            "n_validation": model.task.n_validation,
            "diverged": model.diverged,
            "tokens": {kind: asdict(one) for kind, one in model.tokens.items()},
        }
        for model in found.models
    ]
    head = {"task": task.task, "metric": task.metric, "higher_is_better": task.higher_is_better}
    path = out / f"{SCALING}.json"
    write_json(path, {**head, "notes": found.notes, "models": models})
    return path


def scaling_lines(found: Scaling) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells of the table as it is printed."""
    shown = [kind for kind in TOKEN_STYLES if any(kind in model.tokens for model in found.models)]
    _, digits = METRICS[found.models[0].task.metric]

    def cell(one: Measurement | None) -> str:
        if one is None:
            return UNDEFINED
        return with_interval(one.value.mean, one.value.low, one.value.high, digits)

    cells = [
        [model.name, size_text(model.n_parameters), *(cell(model.tokens.get(k)) for k in shown)]
        for model in found.models
    ]
    return ["model", "size", *(TOKEN_STYLES[kind][0] for kind in shown)], cells


def plot_scaling(found: Scaling) -> Figure:
    """Draw every kind of tokens over the models, which stand at equal distances.

    A kind of tokens that no model has is left out.
    """
    panel, models = new_panel(5.0, rows=2), found.models
    ax, below = panel.axes
    ax.get_gridspec().set_height_ratios([3, 2])  # pyright: ignore[reportOptionalMemberAccess]
    label_axes(below, y="change from original")
    drawn = [kind for kind in TOKEN_STYLES if any(_is_measured(model, kind) for model in models)]
    if not drawn:
        say_empty(ax, "no model has been probed")
        return panel.figure
    task = models[0].task
    label_axes(ax, y=f"{METRICS[task.metric][0]}, {task.task}")
    handles: list[object] = []
    below.axhline(0, color=INK, lw=1.0)
    none = MeanInterval(math.nan)
    for i, kind in enumerate(drawn):
        places = np.arange(len(models)) + (i - (len(drawn) - 1) / 2) * MODEL_NUDGE
        rows = [model.tokens.get(kind) for model in models]
        values = [none if row is None else row.value for row in rows]
        handles.append(_draw_kind(ax, kind, places, values))
        if kind != "original":
            _draw_kind(below, kind, places, [none if row is None else row.change for row in rows])
    labels = [f"{literal(model.name)}\n{size_text(model.n_parameters)}" for model in models]
    below.set_xticks(range(len(models)), labels)
    below.set_xlim(-MARGIN, len(models) - 1 + MARGIN)
    for axes in panel.axes:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    panel.figure.align_ylabels()
    add_legend(panel.figure, handles, [TOKEN_STYLES[kind][0] for kind in drawn], columns=2)
    return panel.figure


def size_text(n_parameters: int | None) -> str:
    """Write a number of parameters: 430 k, 86 M, 1.1 B."""
    if n_parameters is None:
        return "size unknown"
    for unit, letter in UNITS:
        if n_parameters >= ROUNDS_UP * unit:
            scaled = n_parameters / unit
            return f"{scaled:.1f} {letter}" if scaled < 10 else f"{scaled:.0f} {letter}"
    return str(n_parameters)


def _is_measured(model: ScaledModel, kind: str) -> bool:
    return kind in model.tokens and math.isfinite(model.tokens[kind].value.mean)


def _draw_kind(ax: Axes, kind: str, places: Any, values: Sequence[MeanInterval]) -> Any:
    _, colour, marker, dashes = TOKEN_STYLES[kind]
    mean, low, high = np.array([(one.mean, one.low, one.high) for one in values]).T
    ends = np.maximum(np.nan_to_num(np.stack([mean - low, high - mean])), 0.0)
    look: dict[str, Any] = {"color": colour, "marker": marker, "ls": dashes, "ms": 5.5, "lw": 1.5}
    return ax.errorbar(places, mean, yerr=ends, elinewidth=1.2, **look)
