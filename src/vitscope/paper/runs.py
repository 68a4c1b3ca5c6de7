"""The runs of a reproduction: which a request needs, making them, finding them again."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.backbones.zoo import PAPER_ZOO
from vitscope.distributed import current_ranks
from vitscope.embedded.files import REFERENCE_BACKBONES, SCENES_VIT, SCENES_VIT_SIZES
from vitscope.errors import ArtifactError, ConfigError
from vitscope.paper.assumptions import OptionValue, Readings, assume, readings_label, variations
from vitscope.paper.findings import FinishedRun, read_findings
from vitscope.paper.studies import (
    PLANTED_MODEL,
    SceneSize,
    Sources,
    is_scenes_model,
    paper_models,
    paper_study,
    scenes_study,
)
from vitscope.paper.targets import ALL, TARGETS, Target, chosen_targets, stages_of
from vitscope.pipeline import STAGES, OnStage, all_stages, run_study
from vitscope.run import Run
from vitscope.sae.settings import SaeSettings
from vitscope.sae.storage import save_sae
from vitscope.selfcheck.truth import oracle_sae
from vitscope.store.atomic import read_json, write_json
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stamp import read_stamp
from vitscope.study import Study, resolve_paths

MARK = "reproduction.json"
"""What tells a run of a reproduction from others: its model, readings and targets."""

FAMILY_TARGET = "figure8"
"""The target that looks at a whole family of sizes."""


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
        studies: of one's own, to be judged by the paper's claims instead of its models.
    """

    targets: tuple[str, ...]
    models: tuple[str, ...] = ()
    sources: Sources = field(default_factory=Sources)
    readings: Readings = field(default_factory=dict[str, OptionValue])
    other_readings: bool = True
    out: Path = Path("runs/reproduce")
    size: SceneSize = field(default_factory=SceneSize)
    studies: tuple[Study, ...] = ()


@dataclass(frozen=True)
class PlannedRun:
    """One run to be made.

    Attributes:
        model: the backbone, or the name of a study of one's own.
        readings: otherwise than by default.
        targets: that it serves.
        study: with absolute paths.
        stages: to be run, in the order of the pipeline.
        folder: where.
        from_: a run whose finished stages are taken over first; None begins from nothing.
    """

    model: str
    readings: Readings
    targets: tuple[Target, ...]
    study: Study
    stages: tuple[str, ...]
    folder: Path
    from_: Path | None = None

    @property
    def name(self) -> str:
        """Model and readings."""
        return " ".join(filter(None, (self.model, readings_label(self.readings))))


def plan_runs(request: Request) -> tuple[PlannedRun, ...]:
    """Return the runs that a request needs, the further readings of a model after it.

    Raises:
        ConfigError: an unknown target or reading, or a choice that fits no single model.
        BackboneError: an unknown model.
    """
    targets, sources = chosen_targets(request.targets), request.sources
    if not targets:
        raise ConfigError(f"no target given; targets: {', '.join(TARGETS)}, {ALL}")
    if request.studies:
        return tuple(run for study in request.studies for run in _of_study(study, targets, request))
    models = request.models or paper_models(targets)
    if len(models) > 1 and (sources.weights or sources.sae):
        raise ConfigError("--weights and --sae are of one model; name it with --model")
    planned = [run for model in models for run in _of_model(model, targets, request)]
    # All sizes of the embedded family come along with its default, trained alike: the SAE that
    # comes with the default was trained longer than a family's can be here, so that the default's
    # own size is run once more, with an SAE made as those of the others are.
    family, own = TARGETS[FAMILY_TARGET], sources.weights or sources.sae or sources.images
    if family in targets and SCENES_VIT in models and own is None:
        alone = replace(request, targets=(FAMILY_TARGET,), other_readings=False)
        for size in SCENES_VIT_SIZES:
            planned += () if size in models else _of_model(size, (family,), alone)
    return tuple(planned)


def _of_model(model: str, targets: Sequence[Target], request: Request) -> list[PlannedRun]:
    mine, sources = tuple(targets), request.sources
    if ALL in request.targets and model in PAPER_ZOO:
        mine = tuple(target for target in targets if model in target.models)
    if model == PLANTED_MODEL or sources.images is not None:
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
    earlier = tuple(t for t in _served_targets(base) if t.tasks and sources.images is None)
    study = _study(model, (*mine, *earlier), request, base)
    return _with_variations(PlannedRun(model, request.readings, mine, study, (), base), request)


def _of_study(study: Study, targets: Sequence[Target], request: Request) -> list[PlannedRun]:
    """Return the runs of a study of one's own, under its name: of targets it has probes for."""
    if study.name in (*PAPER_ZOO, *REFERENCE_BACKBONES) and study.name != study.backbone.name:
        raise ConfigError(
            f"the study '{study.name}' has the name of another model than its own, "
            f"{study.backbone.name}; give it another name"
        )
    heads = study.probes.heads()
    mine = tuple(t for t in targets if not t.tasks or any(task in heads for task in t.tasks))
    if not mine:
        raise ConfigError(
            f"the study '{study.name}' probes none of what these targets show; set "
            "probes.classification.train, probes.segmentation.train or probes.depth.train"
        )
    base, read = (
        request.out / _folder(study.name, request.readings),
        assume(study, request.readings),
    )
    return _with_variations(PlannedRun(study.name, request.readings, mine, read, (), base), request)


def _with_variations(planned: PlannedRun, request: Request) -> list[PlannedRun]:
    """Return a run with its stages, and those of the readings that it cannot hold."""
    model, study, mine, base = planned.model, planned.study, planned.targets, planned.folder
    runs = [replace(planned, stages=_wanted_stages(study, stages_of(mine)))]
    for variation in variations(study, mine) if request.other_readings else ():
        if set(variation.readings) & set(request.readings):
            continue
        readings, other = {**request.readings, **variation.readings}, variation.applied_to(study)
        if "train" not in variation.stages:  # an SAE of the designated block fits no other
            other = other.model_copy(update={"sae": SaeSettings()})
        folder, stages = request.out / _folder(model, readings), variation.stages
        runs.append(
            PlannedRun(model, readings, mine, other, _wanted_stages(other, stages), folder, base)
        )
    return runs


def _study(model: str, targets: Sequence[Target], request: Request, base: Path) -> Study:
    if is_scenes_model(model):
        study = scenes_study(model, targets, request.sources, request.size)
    else:
        study = paper_study(model, targets, request.sources)
    if model == PLANTED_MODEL and study.sae.path is None:
        study = study.model_copy(update={"sae": SaeSettings(path=_oracle_folder(base))})
    return resolve_paths(assume(study, request.readings), Path.cwd())


def _oracle_folder(folder: Path) -> Path:
    """Return where the planted backbone's true dictionary lies in a run."""
    return folder.absolute() / "oracle-sae"


def _wanted_stages(study: Study, names: Sequence[str]) -> tuple[str, ...]:
    """Return those stages that the study has a use for, in the order of the pipeline."""
    return tuple(s.name for s in all_stages() if s.name in names and s.is_wanted(study))


def _folder(model: str, readings: Readings) -> str:
    name = model if not readings else f"{model}~{readings_label(readings)}"
    return "".join(c if c.isalnum() or c in "-_.=~," else "-" for c in name)


def run_planned(planned: PlannedRun, on_stage: OnStage | None = None) -> None:
    """Run what is not up to date; what an unchanged earlier run left is kept.

    Raises:
        VitscopeError: naming what was wrong; what had finished stays finished.
    """
    ranks = current_ranks()
    if ranks.rank == 0:
        if planned.from_ is not None:
            take_over(RunDirectory(planned.from_), RunDirectory(planned.folder))
        oracle = _oracle_folder(planned.folder)
        if planned.study.sae.path == oracle:
            save_sae(oracle, oracle_sae(PlantedBackbone()))
    ranks.barrier()  # its beginning stands
    run_study(planned.study, planned.folder, only=planned.stages, on_stage=on_stage)
    if ranks.rank == 0:
        names = {target.name for target in (*planned.targets, *_served_targets(planned.folder))}
        mark = {
            "model": planned.model,
            "readings": dict(planned.readings),
            "targets": [name for name in TARGETS if name in names],
        }
        write_json(planned.folder / MARK, mark)
    ranks.barrier()  # its mark stands


def take_over(source: RunDirectory, run: RunDirectory) -> None:
    """Link the outputs of the finished stages of ``source`` into ``run``, unless it has begun.

    Files are replaced, never rewritten, so that a link is safe: what changes becomes a new file.
    """
    if run.stamp("images").exists() or not source.stamp("images").exists():
        return
    for stage in STAGES:
        stamp = read_stamp(source, stage)
        if stamp is None:
            continue
        for relative in stamp.outputs:
            _link(source.root / relative, run.root / relative)
        _link(source.stamp(stage), run.stamp(stage))


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        if source.suffix == ".jsonl":  # a log is appended to
            raise OSError
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def find_runs(out: Path) -> tuple[FinishedRun, ...]:
    """Return the runs of a reproduction below ``out``: models as the zoo has them, then others.

    Raises:
        ArtifactError: a mark or a table is damaged.
        ConfigError: a run's study cannot be read.
    """
    found: list[FinishedRun] = []
    for mark in sorted(out.glob(f"*/{MARK}")):
        known, run = _read_mark(mark), Run(mark.parent)
        found.append(FinishedRun(*known, run, read_findings(run)))
    places = {name: i for i, name in enumerate((*PAPER_ZOO, *REFERENCE_BACKBONES))}
    return tuple(
        sorted(
            found,
            key=lambda r: (places.get(r.model, len(places)), r.model, readings_label(r.readings)),
        )
    )


def _served_targets(folder: Path) -> tuple[Target, ...]:
    """Return the targets that earlier requests had of the run in ``folder``."""
    mark = folder / MARK
    return _read_mark(mark)[2] if mark.exists() else ()


def _read_mark(path: Path) -> tuple[str, Readings, tuple[Target, ...]]:
    """Return the model, the readings and the targets that a mark names."""
    match read_json(path):
        case {"model": str(model), "readings": dict(readings), "targets": list(targets)}:
            try:
                return model, readings, chosen_targets(targets)
            except (ConfigError, TypeError) as error:
                why = str(error)
        case _:
            why = "model, readings and targets are not all there"
    raise ArtifactError(f"{path} is no mark of a reproduction: {why}; remove it and run again")
