"""The whole pipeline on one screen: every stage, in order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitscope.errors import ConfigError
from vitscope.stages.awcds import run_awcds
from vitscope.stages.context import Context, StageOutcome
from vitscope.stages.evaluate import run_evaluate
from vitscope.stages.extract import run_extract
from vitscope.stages.images import run_images
from vitscope.stages.instability import run_instability
from vitscope.stages.joined import held_run
from vitscope.stages.outliers import run_outliers
from vitscope.stages.partition import run_partition
from vitscope.stages.probe import open_tasks, probes_are_set, run_probe
from vitscope.stages.report import run_report
from vitscope.stages.score import run_score
from vitscope.stages.stability import run_stability
from vitscope.stages.train import run_train
from vitscope.stages.zeroshot import open_zero_shot_of, run_zeroshot, zero_shot_is_set
from vitscope.store.stage import read_stamp
from vitscope.study import Study


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Attributes:
        name: its verb.
        run: the work.
        is_wanted: whether a study has any use for it.
        check: refuses, before any stage runs, what it could not use.
    """

    name: str
    run: Callable[[Context], StageOutcome]
    is_wanted: Callable[[Study], bool] = lambda _: True
    check: Callable[[Study], object] = lambda _: None


STAGES: tuple[Stage, ...] = (
    Stage("images", run_images),
    Stage("extract", run_extract, is_wanted=lambda study: study.sae.path is None),
    Stage("train", run_train),
    Stage("outliers", run_outliers),
    Stage("evaluate", run_evaluate),
    Stage("score", run_score),
    Stage("partition", run_partition),
    Stage("stability", run_stability),
    Stage("instability", run_instability),
    Stage("awcds", run_awcds),
    Stage("probe", run_probe, probes_are_set, open_tasks),
    Stage("zeroshot", run_zeroshot, zero_shot_is_set, open_zero_shot_of),
    Stage("report", run_report),
)

OnStage = Callable[[Stage, StageOutcome], None]


def run_study(
    study: Study, out: Path, *, only: Sequence[str] | None = None, on_stage: OnStage | None = None
) -> dict[str, StageOutcome]:
    """Run a study's stages in ``out``; what is unchanged since an earlier run is skipped.

    In a job of several ranks every one calls this with equal arguments; rank 0 alone writes.

    Args:
        study: with absolute paths.
        out: the run directory, created where needed and locked meanwhile.
        only: names of the stages to run, in pipeline order; all of them by default.
        on_stage: called after each stage.

    Returns:
        how each stage ended, by name.

    Raises:
        VitscopeError: naming what was wrong; what had finished stays finished.
    """
    outcomes: dict[str, StageOutcome] = {}
    with held_run(out, study) as run:
        context = Context(study, run, None if only is None else frozenset(only))
        stages = chosen_stages(study, only)
        for stage in stages:
            stage.check(study)
        _check_before(context, stages)
        for stage in stages:
            outcomes[stage.name] = stage.run(context)
            if on_stage is not None:
                on_stage(stage, outcomes[stage.name])
    return outcomes


def _check_before(context: Context, stages: Sequence[Stage]) -> None:
    """Refuse to build on an earlier stage that finished under other settings or inputs."""
    if context.only is None or not stages:
        return
    for stage in STAGES[: STAGES.index(stages[0])]:
        if stage.is_wanted(context.study) and read_stamp(context.run, stage.name) is not None:
            stage.run(context)


def chosen_stages(study: Study, only: Sequence[str] | None = None) -> list[Stage]:
    """Return the stages to run: those that ``only`` names, or all that the study has a use for.

    Raises:
        ConfigError: ``only`` names a stage that does not exist.
    """
    known = {stage.name for stage in STAGES}
    unknown = set(only or ()) - known
    if unknown:
        raise ConfigError(f"no stage '{sorted(unknown)[0]}'; stages: {', '.join(sorted(known))}")
    if only is not None:
        return [stage for stage in STAGES if stage.name in only]
    return [stage for stage in STAGES if stage.is_wanted(study)]
