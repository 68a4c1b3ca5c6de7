"""How many images a study reads: counted where they are at hand, else the data set's own number."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vitscope.errors import VitscopeError
from vitscope.images.sources import open_image_set
from vitscope.probes.settings import HeadSettings, Task
from vitscope.study import Study

IMAGENET = (1_281_167, 50_000)
KNOWN: dict[Task, tuple[int, int]] = {
    "classification": IMAGENET,
    "segmentation": (20_210, 2_000),
    "depth": (795, 654),
}
"""Training and validation images of ImageNet-1K, ADE20K and NYUd, as published."""


@dataclass(frozen=True)
class ImageCounts:
    """How many images each part of a study reads.

    Attributes:
        train: for the SAE.
        eval: scored.
        tasks: probe -> training and validation images.
        assumed: what was not at hand, so that the data set's published number stands in.
    """

    train: int
    eval: int
    tasks: Mapping[Task, tuple[int, int]]
    assumed: tuple[str, ...]


def published_counts(study: Study) -> ImageCounts:
    """Return the published sizes of the paper's data sets; nothing is looked for on the disk."""
    tasks: dict[Task, tuple[int, int]] = {task: KNOWN[task] for task in study.probes.heads()}
    return ImageCounts(*IMAGENET, tasks, assumed=("every data set",))


def count_images(study: Study) -> ImageCounts:
    """Count what a study reads; nothing is decoded."""
    assumed: list[str] = []

    def count(path: Path, known: int, limit: int | None) -> int:
        try:
            n = len(open_image_set(path))
        except VitscopeError:
            assumed.append(str(path))
            n = known
        return min(n, limit or n)

    images = study.images
    alone = IMAGENET[images.eval is None]
    train = count(images.train, alone, images.train_limit)
    scored = train
    if images.eval is not None:
        scored = count(images.eval, IMAGENET[1], images.eval_limit)
    heads = study.probes.heads()
    tasks: dict[Task, tuple[int, int]] = {
        task: _of_task(task, head, assumed) for task, head in heads.items()
    }
    return ImageCounts(train, scored, tasks, tuple(assumed))


def _of_task(task: Task, head: HeadSettings, assumed: list[str]) -> tuple[int, int]:
    assert head.train is not None
    found: list[int] = []
    for path, known, limit in zip(
        (head.train, head.validation or head.train),
        KNOWN[task],
        (head.train_limit, head.validation_limit),
        strict=True,
    ):
        n = _scenes(path)
        if n is None:
            assumed.append(f"{path} ({task})")
            n = known
        found.append(min(n, limit or n))
    return found[0], found[1]


def _scenes(path: Path) -> int | None:
    address, _, rest = str(path).partition(":")
    return int(rest.partition("?")[0]) if address == "scenes" else None
