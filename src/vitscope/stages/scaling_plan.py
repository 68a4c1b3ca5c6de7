"""Which runs ``vitscope scaling`` compares, and which studies it runs for that."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from vitscope.errors import ConfigError
from vitscope.probes.settings import Task
from vitscope.study import Study, folder_name, load_study, load_study_for_each

TASKS: tuple[Task, ...] = get_args(Task)


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
    if task not in TASKS:
        raise ConfigError(f"no task '{task}'; there are {', '.join(TASKS)}")
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
    require_several(runs)
    return ScalingPlan(task, tuple(runs), tuple(to_run))


def require_several(runs: Sequence[Path]) -> None:
    """Refuse fewer than two runs, and one that is named twice."""
    if len({run.resolve() for run in runs}) < max(len(runs), 2):
        raise ConfigError("scaling needs two different runs or more")
