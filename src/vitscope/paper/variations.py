"""Which further runs show the other readings of what one run cannot hold."""

from collections.abc import Sequence
from dataclasses import dataclass

from vitscope.paper.assumptions import Value
from vitscope.paper.shape import shape_of
from vitscope.paper.studies import PLANTED, is_scenes_model
from vitscope.paper.targets import BASE, CLIP, WITH_ATTENTION, WITH_PROBES, Target
from vitscope.probes.settings import Task
from vitscope.study import Study

OTHER_RESOLUTIONS = {
    "dinov2-b": 518,
    "dinov2-l": 518,
    "dinov2-g": 518,
    "siglip2-b": 256,
    "siglip2-l": 384,
}
"""The input side of the release, or the next larger one, where the paper's may have been that."""

ALL_TASKS: tuple[Task, ...] = ("classification", "segmentation", "depth")


@dataclass(frozen=True)
class Variation:
    """One further run of a model.

    Attributes:
        readings: what is read otherwise.
        stages: that leave what it changes.
        tasks: probes that it changes.
    """

    readings: dict[str, Value]
    stages: tuple[str, ...]
    tasks: tuple[Task, ...] = ()


def variations(study: Study, targets: Sequence[Target]) -> tuple[Variation, ...]:
    """Return the runs that show the other readings of the numbers of ``targets``.

    Only what needs no new SAE: attention under another block, resolution or crop, and probes.
    """
    found: list[Variation] = []
    if any(set(target.stages) == set(WITH_ATTENTION) for target in targets):
        found += [Variation(r, WITH_ATTENTION) for r in _of_attention(study)]
    tasks = tuple(study.probes.heads())
    # the sizes that only Figure 8 has would cost as much again, and decide nothing more
    if tasks and (study.backbone.name in (*CLIP, *BASE) or is_scenes_model(study.backbone.name)):
        found += [
            Variation(readings, WITH_PROBES, some)
            for readings, changed in _of_probes(study)
            if (some := _among(tasks, changed))
        ]
    return tuple(found)


def _among(tasks: Sequence[Task], changed: Sequence[Task]) -> tuple[Task, ...]:
    return tuple(task for task in tasks if task in changed)


def only_tasks(study: Study, tasks: Sequence[Task]) -> Study:
    """Return ``study`` with no other probes than ``tasks``, and without controls."""
    update: dict[str, object] = {
        task: head.model_copy(update={"train": None, "validation": None})
        for task, head in study.probes.heads().items()
        if task not in tasks
    }
    probes = study.probes.model_copy(update={**update, "n_controls": 0})
    return study.model_copy(update={"probes": probes})


def _of_attention(study: Study) -> list[dict[str, Value]]:
    model = study.backbone.name
    found: list[dict[str, Value]] = []
    if model in OTHER_RESOLUTIONS and study.backbone.resolution is None:
        found.append({"resolution": OTHER_RESOLUTIONS[model]})
    one_block = study.backbone.layer is not None or model == PLANTED
    if not one_block and (model in CLIP or is_scenes_model(model)):
        found.append({"layer": shape_of(study).depth})
    if not is_scenes_model(model):  # scenes are square: a crop and a stretch are the same
        found.append({"resize": "stretch" if study.scope.resize == "crop" else "crop"})
    return found


def _of_probes(study: Study) -> list[tuple[dict[str, Value], tuple[Task, ...]]]:
    probes = study.probes
    found: list[tuple[dict[str, Value], tuple[Task, ...]]] = [
        ({"keep_error": not probes.keep_error}, ALL_TASKS)
    ]
    for place in ("designated", "final"):
        changed: list[Task] = []
        for task, head in probes.heads().items():
            if head.probe_at != place:
                changed.append(task)
        found.append(({"probe_at": place}, tuple(changed)))
    for token in ("pooled", "mean", "none"):
        if token != probes.depth.image_token:
            found.append(({"image_token": token}, ("depth",)))
    return found
