"""Stage «probe»: what linear probes read off the tokens with and without each group."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vitscope.backbones.backbone import count_parameters
from vitscope.distributed import ShareDone, current_ranks, rank_0_goes_on
from vitscope.errors import ArtifactError, ConfigError
from vitscope.probes.features import Extraction
from vitscope.probes.planning import needs_of
from vitscope.probes.probe import run_probe as train_and_score
from vitscope.probes.results import ProbeResult, joined_columns
from vitscope.probes.settings import HeadSettings, Task
from vitscope.probes.sources import TaskSets, open_task
from vitscope.progress import say
from vitscope.removal.groups import Group
from vitscope.sae.model import SparseAutoencoder
from vitscope.stages.context import Context, StageOutcome
from vitscope.stages.removal_groups import RemovedGroups, removed_groups
from vitscope.store.atomic import read_json, write_json
from vitscope.store.stage import StageOutput
from vitscope.store.tables import write_table
from vitscope.study import Study

TRIALS = "probes.parquet"
"""One row per head, in the run directory."""

WITHOUT_EFFECT = {
    *("memory_mb", "keep_features"),
    *("zeroshot", "classification", "segmentation", "depth"),
}
"""Settings that change nothing, or stand beside these task by task."""

SOURCES = {"train", "validation", "splits"}
"""Where images lie: what they are is in the sets' own digests."""


def probes_are_set(study: Study) -> bool:
    """Whether any task of the study names images."""
    return bool(study.probes.heads())


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


def run_probe(context: Context) -> StageOutcome:
    """Write ``probes.parquet``, one row per head, and ``tables/probes.json``, their summary."""
    study, run = context.study, context.run
    settings, sets = study.probes, open_tasks(study)

    def body(fingerprint: str) -> StageOutput:
        removed = removed_groups(context)
        for task in settings.heads():
            with suppress(ShareDone):  # another rank takes the next task's features at once
                _make_result(context, task, sets[task], removed, fingerprint)
        rank_0_goes_on()
        results = [_read_result(context, task, fingerprint) for task in settings.heads()]
        source = {"stage": "probe", "fingerprint": fingerprint}
        write_table(run.root / TRIALS, joined_columns(results), source)
        table = removed.described() | {"tasks": [result.described() for result in results]}
        head = {"fingerprint": fingerprint, "backbone": backbone_described(context)}
        write_json(run.table("probes"), {**head, **table})
        return StageOutput([run.root / TRIALS, run.table("probes")], _summary(results, removed))

    heads = settings.heads().items()
    return context.finish(
        "probe",
        settings={
            **settings.model_dump(mode="json", exclude=WITHOUT_EFFECT),
            **{task: head.model_dump(mode="json", exclude=SOURCES) for task, head in heads},
        },
        after=("train", "partition"),
        extra_inputs={
            "backbone": context.backbone_digest,
            **{
                f"{task}, {name}": f"{len(images)} {images.digest}"
                for task, both in sets.items()
                for name, images in (("train", both.train), ("validation", both.validation))
            },
        },
        body=body,
        shared=True,
    )


def backbone_described(context: Context) -> dict[str, Any]:
    """Return which backbone was probed, and its size, as plain values."""
    name = context.study.backbone.name
    size = count_parameters(context.backbone)
    return {"name": name, "n_parameters": size, **asdict(context.backbone.site)}


def extraction(
    context: Context,
    sae: SparseAutoencoder,
    groups: Mapping[str, Group],
    task: Task,
    head: HeadSettings,
) -> Extraction:
    """Return how the study takes the features of a task."""
    study = context.study
    return Extraction(
        backbone=context.backbone,
        sae=sae,
        groups=groups,
        task=task,
        settings=head,
        keep_error=study.probes.keep_error,
        cache=study.probes.cache,
        batch_size=study.backbone.batch_size,
        workers=study.images.workers,
        stretch=context.stretch,
        memory_mb=study.probes.memory_mb,
    )


def _make_result(
    context: Context, task: Task, sets: TaskSets, removed: RemovedGroups, fingerprint: str
) -> None:
    """Keep a task's result on the disk, unless an earlier process has left it there."""
    settings, ranks = context.study.probes, current_ranks()
    path = _path_of_result(context, task)
    stands = ranks.rank == 0 and _standing(path, fingerprint) is not None
    if ranks.tell(str(stands)) == str(True):
        return
    made = extraction(context, context.sae, removed.masks, task, settings.heads()[task])
    n_images = (len(sets.train), len(sets.validation))
    say(needs_of(made, n_images, sets.n_outputs, settings).sentence)
    found = train_and_score(
        made,
        sets.train,
        sets.validation,
        context.run.probe_features if settings.keep_features else path.parent,
        settings,
        n_outputs=sets.n_outputs,
        seed=context.study.seed,
    )
    write_json(path, {"fingerprint": fingerprint, "result": found.to_values()})


def _read_result(context: Context, task: Task, fingerprint: str) -> ProbeResult:
    """Read a task's result: always through the disk, so that a resumed run ends like any other."""
    values = _standing(_path_of_result(context, task), fingerprint)
    assert values is not None
    return ProbeResult.from_values(values)


def _path_of_result(context: Context, task: Task) -> Path:
    return context.run.parts("probe") / f"{task}.json"


def _standing(path: Path, fingerprint: str) -> dict[str, Any] | None:
    try:
        found = read_json(path)
    except ArtifactError:
        return None  # missing or damaged: trained anew
    return found["result"] if found.get("fingerprint") == fingerprint else None


def _summary(results: list[ProbeResult], removed: RemovedGroups) -> dict[str, Any]:
    return {
        "tasks": {
            result.task: {
                "metric": result.metric,
                **{one.variant: one.mean for one in result.variants},
            }
            for result in results
        },
        "unmatched": sorted(
            of for of, drawn in removed.controls.items() if not any(c.is_matched for c in drawn)
        ),
        "diverged": sum(len(one.diverged) for result in results for one in result.variants),
    }
