"""Pictures with a label, a mask or a depth map each: of data sets, or rendered scenes."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitscope.embedded.labels import label_indices
from vitscope.embedded.scene import RENDERER, render_scene, scene_address
from vitscope.embedded.vocabulary import LABEL_CLASSES, MASK_CLASSES
from vitscope.errors import ConfigError, ImageSetError
from vitscope.images.ade20k import read_ade20k
from vitscope.images.imagenet import open_imagenet
from vitscope.images.nyud import read_nyud_folder, read_nyud_mat
from vitscope.images.sources import SceneSet, is_scene_set
from vitscope.probes.settings import (
    ClassificationSettings,
    DepthSettings,
    HeadSettings,
    SegmentationSettings,
    Task,
    ZeroShotSettings,
)
from vitscope.store.atomic import fingerprint

EIGEN_ROWS, EIGEN_COLUMNS = (45 / 480, 471 / 480), (41 / 640, 601 / 640)
"""Share of a map's height and width that Eigen's crop keeps, of 480 x 640 in NYU's case."""


class LabelledImages(Protocol):
    """Pictures in a fixed order, each with its truth: any reader of ``images``, or scenes.

    The truth is a label (an array without axes, counted from 0), a mask [H, W] with 0 = ignore, or
    depth [H, W] in metres with 0 = unknown. ``load`` is called from several threads.
    """

    @property
    def ids(self) -> tuple[str, ...]:
        """One name per picture."""
        ...

    @property
    def digest(self) -> Any:  # a text; ``Any``, or cached properties would not do
        """Changes when a picture or its truth does."""
        ...

    def __len__(self) -> int: ...

    def load(self, index: int) -> tuple[Image.Image, NDArray[Any]]:
        """Return a picture as RGB, and its truth."""
        ...


_Split = tuple[LabelledImages, tuple[str, ...]]
"""One split of a set, and the names of its classes."""


class LabelledScenes:
    """Rendered scenes with the truth of a task; nothing is stored.

    Args:
        task: which truth.
        first: index of the first scene.
        n: how many.
        seed: of the set.
        side: pixels a side.
        label: for classification, one of ``vocabulary.LABEL_CLASSES``.
    """

    def __init__(
        self, task: Task, first: int, n: int, *, seed: int, side: int, label: str = "place"
    ) -> None:
        self.task, self.label, self._seed, self._side = task, label, seed, side
        self._indices = range(first, first + n)
        self.ids = tuple(f"{seed}-{index:07d}" for index in self._indices)

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels, or of mask values 1, 2, …"""
        return MASK_CLASSES[1:] if self.task == "segmentation" else LABEL_CLASSES[self.label]

    @property
    def digest(self) -> str:
        """Hash of which scenes they are, and of what is asked of them."""
        first = [self._indices.start, len(self), self._seed, self._side]
        return fingerprint([RENDERER, self.task, self.label, *first])

    def load(self, index: int) -> tuple[Image.Image, NDArray[Any]]:
        """Render a picture, and return its truth."""
        scene = render_scene(self._seed, self._indices[index], self._side)
        picture = scene.picture()
        if self.task == "segmentation":
            return picture, scene.mask.astype(np.int64)
        if self.task == "depth":
            return picture, scene.depth
        return picture, np.asarray(label_indices(scene.labels)[self.label])


class EvenSubset:
    """At most ``n`` pictures of a set, evenly spread over its order."""

    def __init__(self, images: LabelledImages, n: int) -> None:
        kept = min(n, len(images))
        self._rows = [i * len(images) // kept for i in range(kept)]
        self._images = images
        self.ids = tuple(images.ids[row] for row in self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def digest(self) -> str:
        """Hash of the set and of how many are taken."""
        return fingerprint([self._images.digest, len(self)])

    def load(self, index: int) -> tuple[Image.Image, NDArray[Any]]:
        """Return a picture as RGB, and its truth."""
        return self._images.load(self._rows[index])


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


def open_task(task: Task, settings: HeadSettings) -> TaskSets:
    """Open both sets of a task.

    Raises:
        ConfigError: scenes without validation scenes of their own, or an unknown label of scenes.
        ImageSetError: a set cannot be used as it is, or both have other classes.
    """
    assert settings.train is not None, "a task without images is not run"
    place = f"probes.{task}"
    train, validation = _splits(task, settings.train, settings)
    if settings.validation is not None:
        scenes, held_out = _splits(task, settings.validation, settings)
        validation = held_out or scenes
    if validation is None:
        raise ConfigError(
            f"{place}.validation: scenes have no validation split; name scenes of another seed, "
            "as in scenes:1000?seed=1"
        )
    (learned, classes), (scored, other_classes) = train, validation
    if classes != other_classes:
        raise ImageSetError(
            f"{place}: {settings.train} has {len(classes)} classes, {settings.validation} "
            f"{len(other_classes)} or others; both must have the same"
        )
    _require_apart(place, learned, scored)
    limited = _limited(learned, settings.train_limit), _limited(scored, settings.validation_limit)
    return TaskSets(*limited, classes)


def open_zero_shot(settings: ZeroShotSettings) -> tuple[LabelledImages, tuple[str, ...]]:
    """Open the images of zero-shot; return them and the names of their classes.

    Raises:
        ImageSetError: the set cannot be used as it is.
    """
    assert settings.images is not None, "zero-shot without images is not run"
    first, second = _splits("classification", settings.images, ClassificationSettings())
    images, classes = second or first
    return _limited(images, settings.limit), classes


def _splits(task: Task, path: Path, settings: HeadSettings) -> tuple[_Split, _Split | None]:
    """Return the training and the validation split at ``path``; scenes have but one."""
    if is_scene_set(path):
        return _scenes(task, path, settings), None
    if isinstance(settings, DepthSettings):
        read = (
            partial(read_nyud_mat, path, settings.splits or path.with_name("splits.mat"))
            if path.suffix == ".mat"
            else partial(read_nyud_folder, path, unit=settings.unit)
        )
        return (read("train"), ()), (read("test"), ())
    if isinstance(settings, SegmentationSettings):
        train, validation = (read_ade20k(path, split) for split in ("training", "validation"))
    else:
        train, validation = open_imagenet(path)
    return (train, train.classes), (validation, validation.classes)


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
    return images, () if task == "depth" else images.classes


def _require_apart(place: str, train: LabelledImages, validation: LabelledImages) -> None:
    if not isinstance(train, LabelledScenes) or not isinstance(validation, LabelledScenes):
        return
    shared = set(train.ids) & set(validation.ids)
    if shared:
        raise ConfigError(
            f"{place}: {len(shared)} scenes are in both sets; give one of them another seed"
        )


def _limited(images: LabelledImages, limit: int | None) -> LabelledImages:
    return images if limit is None or limit >= len(images) else EvenSubset(images, limit)


def map_to_square(
    values: NDArray[Any], side: int, crop_share: float, *, stretch: bool, pixels: int
) -> NDArray[Any]:
    """Return what of a mask or depth map [H, W] lies under the backbone's input, unmixed.

    It takes the way of its picture through ``images.loading.to_square``, but every pixel keeps the
    value of one pixel of the original: no class lies between two others.

    Args:
        values: one per pixel of the picture.
        side: of the backbone's input, in pixels.
        crop_share: share of the resized shorter side that the crop keeps.
        stretch: whether the picture's aspect ratio was given up.
        pixels: side of the result; ``side`` for one value per pixel of the input.
    """
    height, width = values.shape
    target = round(side / crop_share)
    if stretch:
        size = (target, target)
    elif width <= height:
        size = (target, round(target * height / width))
    else:
        size = (round(target * width / height), target)
    left, top = (round((length - side) / 2) for length in size)
    along = (np.arange(pixels) + 0.5) * side / pixels
    columns = ((left + along) * width / size[0]).astype(np.int64).clip(0, width - 1)
    rows = ((top + along) * height / size[1]).astype(np.int64).clip(0, height - 1)
    return np.ascontiguousarray(values[np.ix_(rows, columns)])


def eigen_crop(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return depth [H, W] with 0, unknown, outside Eigen's crop."""
    height, width = depth.shape
    rows, columns = (
        slice(*(round(share * length) for share in shares))
        for shares, length in ((EIGEN_ROWS, height), (EIGEN_COLUMNS, width))
    )
    inner = np.zeros_like(depth)
    inner[rows, columns] = depth[rows, columns]
    return inner
