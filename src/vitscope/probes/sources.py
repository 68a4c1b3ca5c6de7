"""The sets of a task: what a study names, opened and compared before anything is computed."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vitscope.embedded.scene import scene_address
from vitscope.embedded.vocabulary import LABEL_CLASSES
from vitscope.errors import ConfigError, ImageSetError
from vitscope.images.ade20k import read_ade20k
from vitscope.images.imagenet import ClassifiedImages, open_imagenet
from vitscope.images.nyud import DepthImages, read_nyud_folder, read_nyud_mat
from vitscope.images.sources import SceneSet, is_scene_set
from vitscope.probes.labelled import Few, LabelledImages, LabelledScenes
from vitscope.probes.settings import (
    ClassificationSettings,
    DepthSettings,
    HeadSettings,
    SegmentationSettings,
    Task,
    ZeroShotSettings,
)

MAT = ".mat"
SPLITS = "splits.mat"


@dataclass(frozen=True, eq=False)
class TaskSets:
    """What a task is trained and scored on.

    Attributes:
        train: with their truth.
        validation: likewise.
        classes: names of the labels, or of mask values 1, 2, …; empty for depth.
    """

    train: LabelledImages
    validation: LabelledImages
    classes: tuple[str, ...]

    @property
    def n_outputs(self) -> int | None:
        """Number of classes; None where the task has none."""
        return len(self.classes) or None


@dataclass(frozen=True, eq=False)
class _Split:
    """One split of a set, and the names of its classes."""

    images: LabelledImages
    classes: tuple[str, ...]


def open_task(task: Task, settings: HeadSettings) -> TaskSets:
    """Open both sets of a task.

    Raises:
        ConfigError: scenes without validation scenes of their own, or an unknown label of scenes.
        ImageSetError: a set cannot be used as it is, or both have other classes.
    """
    assert settings.train is not None, "a task without images is not run"
    place = f"probes.{task}"
    train, own = _splits(task, settings.train, settings)
    validation = own
    if settings.validation is not None:
        scenes, held_out = _splits(task, settings.validation, settings)
        validation = held_out or scenes
    if validation is None:
        raise ConfigError(
            f"{place}.validation: scenes have no validation split; name scenes of another seed, "
            "as in scenes:1000?seed=1"
        )
    if train.classes != validation.classes:
        raise ImageSetError(
            f"{place}: {settings.train} has {len(train.classes)} classes, {settings.validation} "
            f"{len(validation.classes)} or others; both must have the same"
        )
    _require_apart(place, train.images, validation.images)
    few = (
        _limited(train.images, settings.train_limit),
        _limited(validation.images, settings.validation_limit),
    )
    return TaskSets(*few, train.classes)


def open_zero_shot(settings: ZeroShotSettings) -> tuple[LabelledImages, tuple[str, ...]]:
    """Open the images of zero-shot; return them and the names of their classes.

    Raises:
        ImageSetError: the set cannot be used as it is.
    """
    assert settings.images is not None, "zero-shot without images is not run"
    if is_scene_set(settings.images):
        found = _scenes("classification", settings.images, ClassificationSettings())
    else:
        found = _imagenet(settings.images)[1]
    return _limited(found.images, settings.limit), found.classes


def _splits(task: Task, path: Path, settings: HeadSettings) -> tuple[_Split, _Split | None]:
    """Return the training and the validation split at ``path``; scenes have but one."""
    if is_scene_set(path):
        return _scenes(task, path, settings), None
    if isinstance(settings, DepthSettings):
        return _nyud(path, settings)
    return _ade20k(path) if isinstance(settings, SegmentationSettings) else _imagenet(path)


def _imagenet(root: Path) -> tuple[_Split, _Split]:
    def split(images: ClassifiedImages) -> _Split:
        return _Split(images, images.classes)

    train, validation = open_imagenet(root)
    return split(train), split(validation)


def _ade20k(root: Path) -> tuple[_Split, _Split]:
    train, validation = read_ade20k(root, "training"), read_ade20k(root, "validation")
    return _Split(train, train.classes), _Split(validation, validation.classes)


def _nyud(path: Path, settings: DepthSettings) -> tuple[_Split, _Split]:
    def split(images: DepthImages) -> _Split:
        return _Split(images, ())

    if path.suffix == MAT:
        splits = settings.splits or path.with_name(SPLITS)
        read = partial(read_nyud_mat, path, splits)
    else:
        read = partial(read_nyud_folder, path, unit=settings.unit)
    return split(read("train")), split(read("test"))


def _scenes(task: Task, path: Path, settings: HeadSettings) -> _Split:
    label = settings.label if isinstance(settings, ClassificationSettings) else "place"
    if label not in LABEL_CLASSES:
        raise ConfigError(
            f"probes.classification.label: scenes have no label '{label}'; they have "
            f"{', '.join(LABEL_CLASSES)}"
        )
    scenes = SceneSet.parse(path)
    first = scene_address(scenes.refs[0].path)
    assert first is not None
    images = LabelledScenes(task, 0, len(scenes), seed=first.seed, side=first.side, label=label)
    return _Split(images, () if task == "depth" else images.classes)


def _require_apart(place: str, train: LabelledImages, validation: LabelledImages) -> None:
    if not isinstance(train, LabelledScenes) or not isinstance(validation, LabelledScenes):
        return
    shared = set(train.ids) & set(validation.ids)
    if shared:
        raise ConfigError(
            f"{place}: {len(shared)} scenes are in both sets; give one of them another seed"
        )


def _limited(images: LabelledImages, limit: int | None) -> LabelledImages:
    return images if limit is None or limit >= len(images) else Few(images, limit)
