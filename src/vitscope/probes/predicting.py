"""Zero-shot over a labelled set: every image once, all variants from one encoding."""

from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitscope.axes import Float
from vitscope.errors import ConfigError
from vitscope.images.loading import ordered_map
from vitscope.probes.features import PREFETCH_BATCHES, Extraction, load_example
from vitscope.probes.labelled import LabelledImages
from vitscope.probes.prompts import Prompts
from vitscope.probes.text import OpenClipTower, TextTower, class_embeddings
from vitscope.probes.tower_check import require_same_weights
from vitscope.probes.zero_shot import Predictions, variant_logits
from vitscope.progress import Tracker, track

LABEL = "zero-shot"
"""What its progress is called."""


@dataclass(frozen=True, eq=False)
class ZeroShot:
    """Everything that predicts.

    Attributes:
        extraction: backbone, SAE, groups, batch size; its task is classification.
        tower: of the backbone's own weights.
        classes: unit rows, one per class, in the order of the labels.

    Raises:
        ConfigError: the task is another one.
    """

    extraction: Extraction
    tower: TextTower
    classes: Float[Tensor, "C e"]

    def __post_init__(self) -> None:
        if self.extraction.task != "classification":
            raise ConfigError(f"zero-shot classifies; the task is {self.extraction.task}")

    @classmethod
    def prepare(cls, extraction: Extraction, tower: TextTower, prompts: Prompts) -> "ZeroShot":
        """Embed the classes of ``prompts``, which are in the order of the labels.

        Raises:
            ConfigError: the tower is open_clip's, and not of the backbone's weights.
        """
        if isinstance(tower, OpenClipTower):
            require_same_weights(extraction.backbone, tower)
        return cls(extraction, tower, class_embeddings(tower, prompts))

    def predict(
        self, images: LabelledImages, rows: range, progress: Tracker
    ) -> tuple[list[Predictions], NDArray[np.int64]]:
        """Return the predictions of every variant for some images, and their labels.

        Args:
            images: with labels.
            rows: which of them.
            progress: told of every batch.

        Raises:
            ConfigError: a label has no class.
            VitscopeError: an image cannot be used.
        """
        made = self.extraction
        parts: dict[str, list[Predictions]] = {name: [] for name in made.variants}
        labels: list[NDArray[np.int64]] = []
        load = partial(load_example, made, images, False)
        ahead = PREFETCH_BATCHES * made.batch_size
        with closing(ordered_map(load, rows, workers=made.workers, ahead=ahead)) as loaded:
            for start in range(rows.start, rows.stop, made.batch_size):
                n = min(made.batch_size, rows.stop - start)
                batch = [next(loaded) for _ in range(n)]
                some = np.array([int(label) for _, label in batch])
                _require_classes(some, len(self.classes), images.ids[start : start + n])
                pixels = torch.stack([picture for picture, _ in batch])
                logits = variant_logits(made, self.tower, self.classes, pixels)
                for name, found in logits.items():
                    parts[name].append(Predictions.of(name, found, some))
                labels.append(some)
                progress.advance(n)
        joined = [Predictions.joined(parts[name]) for name in made.variants]
        return joined, np.concatenate(labels)


def predict(
    extraction: Extraction, tower: TextTower, prompts: Prompts, images: LabelledImages
) -> tuple[list[Predictions], NDArray[np.int64]]:
    """Return the predictions of every variant, the original first, and the labels.

    Args:
        extraction: backbone, SAE, groups, batch size; its task is classification.
        tower: of the backbone's own weights.
        prompts: classes in the order of the labels.
        images: with labels.

    Raises:
        ConfigError: a label has no class, or the task is another one.
        VitscopeError: an image cannot be used.
    """
    zero_shot = ZeroShot.prepare(extraction, tower, prompts)
    with track(LABEL, len(images), "images") as progress:
        return zero_shot.predict(images, range(len(images)), progress)


def _require_classes(labels: NDArray[np.int64], n_classes: int, ids: tuple[str, ...]) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= n_classes))
    if wrong.size:
        raise ConfigError(
            f"{ids[wrong[0]]} has label {labels[wrong[0]]}, and the prompts name {n_classes} "
            "classes: they must be in the order of the labels"
        )
