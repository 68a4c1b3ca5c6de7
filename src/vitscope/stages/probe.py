"""Stage «probe»: linear probes on tokens with and without each group."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from vitscope.distributed import ShareDone, current_ranks, leave_unless_rank_0
from vitscope.errors import ArtifactError, ConfigError
from vitscope.probes.features import FeatureExtraction
from vitscope.probes.labelled_images import TaskSets, open_task
from vitscope.probes.planning import needs_of
from vitscope.probes.probe import train_and_score
from vitscope.probes.results import TaskResult
from vitscope.probes.settings import HeadSettings, Task
from vitscope.progress import say
from vitscope.removal.remove import FeatureGroup
from vitscope.sae.model import SparseAutoencoder
from vitscope.stages.numbers import short
from vitscope.stages.removal_groups import RemovedGroups, removed_groups
from vitscope.stages.stage import Job, Stage
from vitscope.store.atomic import read_json, write_json
from vitscope.store.records import At, from_json, to_json
from vitscope.store.tables import Table, read_table, write_table
from vitscope.study import Study

WITHOUT_EFFECT = {
    *("memory_mb", "keep_features"),
    *("zeroshot", "classification", "segmentation", "depth"),
}
"""Settings that change nothing, or stand beside these task by task."""

SOURCES = {"train", "validation", "splits"}
"""Where images lie: what they are is in the sets' own digests."""


@dataclass(frozen=True)
class ProbesResult:
    """What probes read off the tokens.

    Attributes:
        removed: the variants of the tokens.
        tasks: in the order of the study.
        trials: one row a head: task, variant, rates, value, divergence.
    """

    removed: RemovedGroups
    tasks: tuple[TaskResult, ...]
    trials: Annotated[Table, At("probes.parquet")]


class ProbeStage(Stage[ProbesResult]):
    """Trains every head of a task at once, on the tokens with and without each group."""

    name = "probe"
    after = ("backbone", "train", "partition")
    shared = True
    Result = ProbesResult

    def is_wanted(self, study: Study) -> bool:
        """Whether any task of the study names images."""
        return bool(study.probes.heads())

    def check(self, study: Study) -> None:
        """Open the sets of every task."""
        open_tasks(study)

    def settings(self, job: Job) -> Mapping[str, Any]:
        """Return how heads are trained, task by task."""
        probes = job.study.probes
        return {
            **probes.model_dump(mode="json", exclude=WITHOUT_EFFECT),
            **{
                task: head.model_dump(mode="json", exclude=SOURCES)
                for task, head in probes.heads().items()
            },
        }

    def inputs(self, job: Job) -> Mapping[str, str]:
        """Return the hash of every task's images."""
        return {
            f"{task}, {name}": f"{len(images)} {images.digest}"
            for task, both in open_tasks(job.study).items()
            for name, images in (("train", both.train), ("validation", both.validation))
        }

    def run(self, job: Job) -> ProbesResult:
        """Train the heads of one task after the other."""
        settings, sets = job.study.probes, open_tasks(job.study)
        removed, masks = removed_groups(job)
        for task in settings.heads():
            with suppress(ShareDone):  # another rank takes the next task's features at once
                _make_result(job, task, sets[task], masks)
        leave_unless_rank_0()
        found = [_read_result(job, task) for task in settings.heads()]
        tables = [trials for _, trials in found]
        return ProbesResult(
            removed=removed,
            tasks=tuple(result for result, _ in found),
            trials=Table({k: np.concatenate([t[k] for t in tables]) for k in tables[0]}),
        )

    def headline(self, result: ProbesResult) -> list[tuple[str, str]]:
        """Return the original beside what is left without each group."""
        rows = [
            (f"{t.task}, {t.metric}", beside_original({v.variant: v.mean for v in t.variants}))
            for t in result.tasks
        ]
        if unmatched := ", ".join(f"{group}-CDS" for group in sorted(result.removed.unmatched)):
            rows.append(("", f"[dim]no random features match {unmatched}[/dim]"))
        if diverged := sum(task.n_diverged for task in result.tasks):
            rows.append(("", f"[dim]{diverged} heads diverged and are left out[/dim]"))
        return rows


def beside_original(values: Mapping[str, float]) -> str:
    """Write original, high-removed and low-removed, and the mean of controls where there are."""
    random = [v for name, v in values.items() if name.startswith("random-high") and isfinite(v)]
    shown = {
        "original": values.get("original"),
        "high removed": values.get("high-removed"),
        "random instead": sum(random) / len(random) if random else None,
        "low removed": values.get("low-removed"),
    }
    return ", ".join(f"{name} {short(v)}" for name, v in shown.items() if v is not None)


def open_tasks(study: Study) -> dict[Task, TaskSets]:
    """Open the sets of every task that is run.

    Raises:
        ConfigError: no task names images, or a setting does not fit its set.
        ImageSetError: a set cannot be used as it is.
    """
    heads = study.probes.heads()
    if not heads:
        raise ConfigError(
            "no probe has images: set probes.classification.train, probes.segmentation.train or "
            "probes.depth.train (docs/probes.md)"
        )
    return {task: open_task(task, head) for task, head in heads.items()}


def extraction(
    job: Job,
    sae: SparseAutoencoder,
    groups: Mapping[str, FeatureGroup],
    task: Task,
    head: HeadSettings,
) -> FeatureExtraction:
    """Return how the study takes the features of a task."""
    study = job.study
    return FeatureExtraction(
        backbone=job.models.backbone,
        sae=sae,
        groups=groups,
        task=task,
        settings=head,
        keep_error=study.probes.keep_error,
        cache=study.probes.cache,
        batch_size=study.backbone.batch_size,
        workers=study.images.workers,
        stretch=study.stretch,
        memory_mb=study.probes.memory_mb,
    )


def _make_result(job: Job, task: Task, sets: TaskSets, masks: Mapping[str, FeatureGroup]) -> None:
    """Keep a task's result on the disk, unless an earlier process has left it there."""
    settings, ranks = job.study.probes, current_ranks()
    path = _path_of_result(job, task)
    stands = ranks.rank == 0 and _standing(job, path) is not None
    if ranks.broadcast(str(stands)) == str(True):
        return
    made = extraction(job, job.models.sae, masks, task, settings.heads()[task])
    say(needs_of(made, sets, settings).sentence)
    result, trials = train_and_score(
        made,
        sets.train,
        sets.validation,
        job.run.probe_features if settings.keep_features else path.parent,
        settings,
        n_outputs=sets.n_outputs,
        seed=job.study.seed,
    )
    write_table(path.with_suffix(".parquet"), trials, {"fingerprint": job.fingerprint})
    write_json(path, {"fingerprint": job.fingerprint, "result": to_json(result)})


def _read_result(job: Job, task: Task) -> tuple[TaskResult, dict[str, NDArray[Any]]]:
    """Read a task's result: always through the disk, so that a resumed run ends like any other."""
    path = _path_of_result(job, task)
    values = _standing(job, path)
    assert values is not None
    return from_json(TaskResult, values), read_table(path.with_suffix(".parquet"))


def _path_of_result(job: Job, task: Task) -> Path:
    return job.run.parts("probe") / f"{task}.json"


def _standing(job: Job, path: Path) -> dict[str, Any] | None:
    try:
        found = read_json(path)
    except ArtifactError:
        return None  # missing or damaged: trained anew
    return found["result"] if found.get("fingerprint") == job.fingerprint else None
