"""What a probe is trained on: pictures with a label, a mask or a depth map each."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitscope.embedded.labels import label_indices
from vitscope.embedded.scene import RENDERER, render_scene
from vitscope.embedded.vocabulary import LABEL_CLASSES, MASK_CLASSES
from vitscope.probes.settings import Task
from vitscope.store.checksum import fingerprint


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


class Few:
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
