"""Building the runs of a reproduction, running them, and finding those that are there."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vitscope.artifacts.atomic import read_json, write_json
from vitscope.artifacts.run_directory import RunDirectory
from vitscope.artifacts.stage import read_stamp
from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.backbones.zoo import ZOO
from vitscope.distributed import current_ranks
from vitscope.errors import ConfigError
from vitscope.pipeline import STAGES, OnStage, run_study
from vitscope.reproduce.assumptions import Value, assume, label
from vitscope.reproduce.sources import Sources
from vitscope.reproduce.studies import (
    FULL,
    PLANTED,
    SceneSize,
    is_scenes_model,
    paper_models,
    paper_study,
    scenes_study,
)
from vitscope.reproduce.targets import ALL, TARGETS, Target, chosen_targets, stages_of
from vitscope.reproduce.variations import only_tasks, variations
from vitscope.sae.settings import SaeSettings
from vitscope.sae.storage import save_sae
from vitscope.selfcheck.oracle import oracle_sae
from vitscope.study import Study, load_study, resolve_paths

MARK = "reproduction.json"
"""What tells a run of a reproduction from others: its model, readings and targets."""


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        targets: names, or ``all``.
        models: names; none takes the paper's own.
        sources: where images lie.
        readings: stated otherwise than by default, by key of an assumption.
        other_readings: whether further runs show the readings that one run cannot hold.
        out: where all runs lie, a folder each.
        size: how much is done on scenes.
    """

    targets: tuple[str, ...]
    models: tuple[str, ...] = ()
    sources: Sources = field(default_factory=Sources)
    readings: Mapping[str, Value] = field(default_factory=dict[str, Value])
    other_readings: bool = True
    out: Path = Path("runs/reproduce")
    size: SceneSize = FULL


@dataclass(frozen=True)
class PlannedRun:
    """One run to be made.

    Attributes:
        model: the backbone.
        readings: otherwise than by default.
        targets: that it serves.
        study: with absolute paths.
        stages: to be run, in the order of the pipeline.
        folder: where.
        from_: a run whose finished stages are taken over first; None begins from nothing.
    """

    model: str
    readings: Mapping[str, Value]
    targets: tuple[Target, ...]
    study: Study
    stages: tuple[str, ...]
    folder: Path
    from_: Path | None = None

    @property
    def name(self) -> str:
        """Model and readings."""
        return " ".join(filter(None, (self.model, label(self.readings))))


@dataclass(frozen=True)
class FinishedRun:
    """A run that is there, perhaps with fewer stages than its study has.

    Attributes:
        model: the backbone.
        readings: otherwise than by default.
        targets: that it serves.
        study: as it was run.
        run: where everything lies.
    """

    model: str
    readings: Mapping[str, Value]
    targets: tuple[Target, ...]
    study: Study
    run: RunDirectory

    def has(self, stage: str) -> bool:
        """Whether a stage has finished."""
        return read_stamp(self.run, stage) is not None


def plan_runs(request: Request) -> tuple[PlannedRun, ...]:
    """Return the runs that a request needs, the further readings of a model after it.

    Raises:
        ConfigError: an unknown target or reading, or a choice that fits no single model.
        BackboneError: an unknown model.
    """
    targets = chosen_targets(request.targets)
    if not targets:
        raise ConfigError(f"no target given; targets: {', '.join(TARGETS)}, {ALL}")
    models = request.models or paper_models(targets)
    if len(models) > 1 and (request.sources.weights or request.sources.sae):
        raise ConfigError("--weights and --sae are of one model; name it with --model")
    planned: list[PlannedRun] = []
    for model in models:
        planned += _of_model(model, targets, request)
    return tuple(planned)


def run_planned(planned: PlannedRun, on_stage: OnStage | None = None) -> FinishedRun:
    """Run what is not up to date; what an unchanged earlier run left is kept.

    Raises:
        VitscopeError: naming what was wrong; what had finished stays finished.
    """
    ranks = current_ranks()
    if planned.from_ is not None and ranks.rank == 0:
        take_over(RunDirectory(planned.from_), RunDirectory(planned.folder))
    oracle = _oracle(planned.folder)
    if ranks.rank == 0 and planned.study.sae.path == oracle:
        save_sae(oracle, oracle_sae(PlantedBackbone()))
    ranks.tell("its beginning stands")
    run_study(planned.study, planned.folder, only=planned.stages, on_stage=on_stage)
    if ranks.rank == 0:
        _write_mark(planned)
    ranks.tell("its mark stands")
    return read_run(planned.folder)


def _write_mark(planned: PlannedRun) -> None:
    names = {target.name for target in (*planned.targets, *_served(planned.folder))}
    write_json(
        planned.folder / MARK,
        {
            "model": planned.model,
            "readings": dict(planned.readings),
            "targets": [name for name in TARGETS if name in names],
        },
    )


def read_run(folder: Path) -> FinishedRun:
    """Read a run of a reproduction.

    Raises:
        ArtifactError: its mark is missing or damaged.
        ConfigError: its study cannot be read.
    """
    mark, run = read_json(folder / MARK), RunDirectory(folder)
    targets = chosen_targets(mark["targets"])
    return FinishedRun(mark["model"], mark["readings"], targets, load_study(run.study), run)


def find_runs(out: Path) -> tuple[FinishedRun, ...]:
    """Return the runs of a reproduction below ``out``, the zoo's models first."""
    found = [read_run(mark.parent) for mark in sorted(out.glob(f"*/{MARK}"))]
    places = {name: i for i, name in enumerate(ZOO)}
    return tuple(
        sorted(found, key=lambda r: (places.get(r.model, len(ZOO)), r.model, label(r.readings)))
    )


def _served(folder: Path) -> tuple[Target, ...]:
    """Return the targets that earlier requests had of the run in ``folder``."""
    mark = folder / MARK
    return chosen_targets(read_json(mark)["targets"]) if mark.exists() else ()


def take_over(source: RunDirectory, run: RunDirectory) -> None:
    """Link the outputs of the finished stages of ``source`` into ``run``, unless it has begun.

    Files are replaced, never rewritten, so that a link is safe: what changes becomes a new file.
    """
    if run.stamp("images").exists() or not source.stamp("images").exists():
        return
    for stage in STAGES:
        stamp = read_stamp(source, stage.name)
        if stamp is None:
            continue
        for relative in stamp.outputs:
            _link(source.root / relative, run.root / relative)
        _link(source.stamp(stage.name), run.stamp(stage.name))


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        if source.suffix == ".jsonl":  # a log is appended to
            raise OSError
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _of_model(model: str, targets: Sequence[Target], request: Request) -> list[PlannedRun]:
    mine = tuple(targets)
    if ALL in request.targets and model in ZOO:
        mine = tuple(target for target in targets if model in target.models)
    if model == PLANTED or request.sources.images is not None:
        mine = tuple(target for target in mine if not target.tasks)
        if not mine:
            raise ConfigError(
                "probes need labelled data sets, which neither images of one's own nor the "
                "planted backbone have; choose another target"
            )
    if not mine:
        raise ConfigError(f"the paper shows '{model}' in none of these targets")
    base = request.out / _folder(model, request.readings)
    # probes of earlier requests stay in the study, or they would be lost when the stage runs again
    earlier = tuple(t for t in _served(base) if t.tasks and request.sources.images is None)
    study = _study(model, (*mine, *earlier), request, base)
    stages = _stages(study, stages_of(mine))
    runs = [PlannedRun(model, request.readings, mine, study, stages, base)]
    if not request.other_readings:
        return runs
    for variation in variations(study, mine):
        if set(variation.readings) & set(request.readings):
            continue
        readings = {**request.readings, **variation.readings}
        other = only_tasks(assume(study, variation.readings), variation.tasks)
        if "train" not in variation.stages:  # an SAE of the designated block fits no other
            other = other.model_copy(update={"sae": SaeSettings()})
        folder = request.out / _folder(model, readings)
        runs.append(
            PlannedRun(model, readings, mine, other, _stages(other, variation.stages), folder, base)
        )
    return runs


def _study(model: str, targets: Sequence[Target], request: Request, base: Path) -> Study:
    if is_scenes_model(model):
        study = scenes_study(model, targets, request.sources, request.size)
    else:
        study = paper_study(model, targets, request.sources)
    if model == PLANTED and study.sae.path is None:
        study = study.model_copy(update={"sae": SaeSettings(path=_oracle(base))})
    return resolve_paths(assume(study, request.readings), Path.cwd())


def _oracle(folder: Path) -> Path:
    return folder.absolute() / "oracle-sae"


def _stages(study: Study, names: Sequence[str]) -> tuple[str, ...]:
    """Return those stages that the study has a use for, in the order of the pipeline."""
    return tuple(s.name for s in STAGES if s.name in names and s.is_wanted(study))


def _folder(model: str, readings: Mapping[str, Value]) -> str:
    name = model if not readings else f"{model}~{label(readings)}"
    return "".join(c if c.isalnum() or c in "-_.=~," else "-" for c in name)
