"""Which runs a reproduction needs: models, their sizes, and the readings beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vitscope.backbones.zoo import ZOO
from vitscope.embedded.files import SCENES_VIT, SCENES_VIT_SIZES
from vitscope.errors import ConfigError
from vitscope.paper.assumptions import Value, assume, label
from vitscope.paper.runs import served_targets
from vitscope.paper.sources import Sources
from vitscope.paper.studies import (
    FULL,
    PLANTED,
    SceneSize,
    is_scenes_model,
    paper_models,
    paper_study,
    scenes_study,
)
from vitscope.paper.targets import ALL, TARGETS, Target, chosen_targets, stages_of
from vitscope.paper.variations import only_tasks, variations
from vitscope.pipeline import STAGES
from vitscope.sae.settings import SaeSettings
from vitscope.study import Study, resolve_paths

SIZES_SHOWN = "figure8"
"""The target that looks at a whole family."""


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
    alone = replace(request, targets=(SIZES_SHOWN,), other_readings=False)
    for model in _sizes_beside(models, targets, request.sources):
        planned += _of_model(model, (TARGETS[SIZES_SHOWN],), alone)
    return tuple(planned)


def _sizes_beside(
    models: Sequence[str], targets: Sequence[Target], sources: Sources
) -> tuple[str, ...]:
    """Return the sizes that come along with the embedded default: all of them, trained alike.

    The SAE that comes with the default was trained longer than a family's can be here, so the
    default's own size is run once more, with an SAE made as those of the others are.
    """
    own = sources.weights or sources.sae or sources.images
    if own is not None or SCENES_VIT not in models:
        return ()
    if SIZES_SHOWN not in {target.name for target in targets}:
        return ()
    return tuple(size for size in SCENES_VIT_SIZES if size not in models)


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
    earlier = tuple(t for t in served_targets(base) if t.tasks and request.sources.images is None)
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
        study = study.model_copy(update={"sae": SaeSettings(path=oracle_folder(base))})
    return resolve_paths(assume(study, request.readings), Path.cwd())


def oracle_folder(folder: Path) -> Path:
    """Return where the planted backbone's true dictionary lies in a run."""
    return folder.absolute() / "oracle-sae"


def _stages(study: Study, names: Sequence[str]) -> tuple[str, ...]:
    """Return those stages that the study has a use for, in the order of the pipeline."""
    return tuple(s.name for s in STAGES if s.name in names and s.is_wanted(study))


def _folder(model: str, readings: Mapping[str, Value]) -> str:
    name = model if not readings else f"{model}~{label(readings)}"
    return "".join(c if c.isalnum() or c in "-_.=~," else "-" for c in name)
