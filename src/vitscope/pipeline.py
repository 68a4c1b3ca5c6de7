"""The whole pipeline on one screen: every stage, in order."""

import pydoc
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitscope.errors import ConfigError

if TYPE_CHECKING:  # stages bring torch, which `vitscope --help` does not wait for
    from vitscope.stages.stage import Job, Models, Outcome, Stage
    from vitscope.study import Study

STAGES = {
    "backbone": "vitscope.stages.backbone",
    "images": "vitscope.stages.images",
    "extract": "vitscope.stages.extract",
    "train": "vitscope.stages.train",
    "outliers": "vitscope.stages.outliers",
    "evaluate": "vitscope.stages.evaluate",
    "score": "vitscope.stages.score",
    "partition": "vitscope.stages.partition",
    "stability": "vitscope.stages.stability",
    "gallery": "vitscope.stages.gallery",
    "instability": "vitscope.stages.instability",
    "awcds": "vitscope.stages.awcds",
    "probe": "vitscope.stages.probe",
    "zeroshot": "vitscope.stages.zeroshot",
    "report": "vitscope.report.stage",
}
"""Name -> the module that holds its class; every other list of stages derives from this one."""

IMPLIED = "backbone"
"""The stage that others bring along: it computes nothing."""

OnStage = Callable[["Outcome"], None]


def purposes() -> dict[str, str]:
    """Return what every stage is for, without importing one: its module's first line says it."""
    found: dict[str, str] = {}
    for name, module in STAGES.items():
        origin = getattr(find_spec(module), "origin", None)
        first = pydoc.synopsis(origin) if origin else None
        found[name] = (first or "").partition("»: ")[2].removesuffix(".")
    return found


def stage_named(name: str, module: str | None = None) -> "Stage[Any]":
    """Return a stage of the pipeline, or that of another module.

    Raises:
        ConfigError: there is no such stage.
    """
    from vitscope.stages.stage import Stage

    if module is None and name not in STAGES:
        raise ConfigError(f"no stage '{name}'; stages: {', '.join(STAGES)}")
    home = import_module(module or STAGES[name])
    for value in vars(home).values():
        if (
            isinstance(value, type)
            and issubclass(value, Stage)
            and value.__module__ == home.__name__
        ):
            return value()
    raise AssertionError(f"{home.__name__} holds no stage")


def all_stages() -> "list[Stage[Any]]":
    """Return every stage, in order."""
    return [stage_named(name) for name in STAGES]


def run_study(
    study: "Study",
    out: Path,
    *,
    only: Sequence[str] | None = None,
    on_stage: OnStage | None = None,
    models: "Models | None" = None,
) -> "dict[str, Outcome]":
    """Run a study's stages in ``out``; what is unchanged since an earlier run is skipped.

    In a job of several ranks every one calls this with equal arguments; rank 0 alone writes.

    Args:
        study: with absolute paths.
        out: the run directory, created where needed and locked meanwhile.
        only: names of the stages to run, in pipeline order; all of them by default.
        on_stage: called after each stage.
        models: what computes; the study's by default, loaded when they are needed.

    Returns:
        how each stage ended, by name.

    Raises:
        VitscopeError: naming what was wrong; what had finished stays finished.
    """
    return run_stages(chosen_stages(study, only), study, out, only, on_stage, models)


def run_stages(
    stages: "Sequence[Stage[Any]]",
    study: "Study",
    out: Path,
    only: Sequence[str] | None,
    on_stage: OnStage | None = None,
    models: Any = None,
    *,
    implied: bool = True,
) -> "dict[str, Outcome]":
    """Run these stages, which need not be the pipeline's own; see :func:`run_study`.

    ``implied`` is whether stage «backbone» may work too, and load the backbone, though ``only``
    does not name it.
    """
    from vitscope.stages.stage import Job, Models, held_run, run_unless_fresh
    from vitscope.store.run_directory import RunDirectory

    run, outcomes = RunDirectory(out), dict[str, Any]()
    with held_run(run, study):
        may_work = None if only is None else frozenset(only) | ({IMPLIED} if implied else set())
        job = Job(study, run, models or Models(study, run), may_work)
        for stage in stages:
            stage.check(study)
        if only is not None:
            _refuse_stale(job, stages)
        for stage in stages:
            outcomes[stage.name] = run_unless_fresh(stage, job)
            if on_stage is not None:
                on_stage(outcomes[stage.name])
    return outcomes


def _refuse_stale(job: "Job", stages: "Sequence[Stage[Any]]") -> None:
    """Refuse to build on an earlier stage that finished under other settings or inputs."""
    from vitscope.stages.stage import run_unless_fresh
    from vitscope.store.stamp import read_stamp

    names = [stage.name for stage in stages if stage.name != IMPLIED]
    order = list(STAGES)
    first = min((order.index(name) for name in names if name in order), default=len(order))
    for stage in map(stage_named, order[:first]):
        standing = read_stamp(job.run, stage.name) is not None
        if stage.name == IMPLIED or (stage.is_wanted(job.study) and standing):
            run_unless_fresh(stage, job)


def chosen_stages(study: "Study", only: Sequence[str] | None = None) -> "list[Stage[Any]]":
    """Return the stages to run: those that ``only`` names, or all that the study has a use for.

    Raises:
        ConfigError: ``only`` names a stage that does not exist.
    """
    unknown = sorted(set(only or ()) - STAGES.keys())
    if unknown:
        raise ConfigError(f"no stage '{unknown[0]}'; stages: {', '.join(STAGES)}")
    if only is not None:
        return [stage_named(name) for name in STAGES if name in only]
    return [stage for stage in all_stages() if stage.is_wanted(study)]


def set_gamma(folder: Path, gamma: float | None) -> None:
    """Make γ the partition of the run in ``folder``, as `vitscope partition` would.

    Its study and its partition change together, or not at all. No model is loaded. The stages after
    «partition» are then not up to date, and the next `vitscope run` redoes them.

    Args:
        folder: a run directory in which every stage before «partition» stands.
        gamma: γ by hand; None proposes it anew from the histogram.

    Raises:
        RunLockedError: another process works in the run.
        ArtifactError: the run cannot be written, or an earlier stage is not up to date: nothing
            has changed then.
        ConfigError: γ is no number between 0 and 1.
    """
    from vitscope.errors import RunLockedError
    from vitscope.store.atomic import write_text
    from vitscope.store.run_directory import RunDirectory
    from vitscope.study import load_study

    path = RunDirectory(folder).study
    study, before = load_study(path), path.read_text(encoding="utf-8")
    scope = study.scope.parse(
        study.scope.model_dump(exclude={"gamma"}) | {"gamma": gamma}, source="scope"
    )
    try:
        # a stranger's run may name code as its backbone: here no stage may load it
        changed, stages = study.model_copy(update={"scope": scope}), [stage_named("partition")]
        run_stages(stages, changed, folder, ["partition"], implied=False)
    except RunLockedError:
        raise  # whoever holds the run has its own study there
    except BaseException:
        if path.read_text(encoding="utf-8") != before:
            write_text(path, before)
        raise
