"""Renders batches of scenes ahead of the network, each scene a function of (seed, index)."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch
from sizes import PATCH
from torch import Tensor

from vitscope.draws import generator
from vitscope.embedded.labels import Caption, SceneFacts, label_indices, partial_caption
from vitscope.embedded.layout import SceneSettings
from vitscope.embedded.scene import plan_scene, render_plan
from vitscope.embedded.vocabulary import COLOURS, LABEL_CLASSES, MASK_CLASSES, TEXTURES

AHEAD = 4
"""Batches that are rendered before they are asked for, for each worker."""

OBJECT_SHARE = 0.35
"""A patch speaks of an object's colour and texture if the object fills this much of it."""

NOT_ASKED = -100
"""Target of a patch without an object; the value that cross-entropy passes over."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Scenes and what is true of them.

    Attributes:
        images: bytes [B, 3, H, W].
        labels: class indices [B] of each label.
        mask: share of each mask class in each patch [B, P, n_classes].
        log_depth: mean logarithm of metres in each patch [B, P].
        texture, colour: classes of the object that fills the patch, or NOT_ASKED [B, P].
        captions: partial captions' words; ``true[i, j]`` says whether caption j holds in image i.
    """

    images: Tensor
    labels: dict[str, Tensor]
    mask: Tensor
    log_depth: Tensor
    texture: Tensor
    colour: Tensor
    captions: list[str]
    true: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Move every tensor."""
        return Batch(
            self.images.to(device, non_blocking=True),
            {name: value.to(device, non_blocking=True) for name, value in self.labels.items()},
            *(
                value.to(device, non_blocking=True)
                for value in (self.mask, self.log_depth, self.texture, self.colour)
            ),
            self.captions,
            self.true.to(device, non_blocking=True),
        )


CURRICULUM = (
    (0.10, SceneSettings(max_objects=4, object_scale=1.25)),
    (0.25, SceneSettings(max_objects=6, object_scale=1.12)),
    (1.00, SceneSettings()),
)
"""Until this share of all images, scenes have these settings: few and large objects first."""


def settings_at(share: float) -> SceneSettings:
    """Return the curriculum's settings once ``share`` of all images have been seen."""
    return next(settings for until, settings in CURRICULUM if share < until or until == 1.0)


def render_batch(seed: int, start: int, n: int, side: int, settings: SceneSettings) -> Batch:
    """Render scenes ``start`` to ``start + n - 1`` with all their targets."""
    rows: list[tuple[np.ndarray, ...]] = []
    facts: list[SceneFacts] = []
    captions: list[Caption] = []
    labels: list[dict[str, int]] = []
    for index in range(start, start + n):
        plan = plan_scene(seed, index, settings)
        scene = render_plan(plan, side)
        kinds = [(TEXTURES.index(t.texture), COLOURS.index(t.colour)) for t in plan.layout.things]
        rows.append((scene.image, *_patch_targets(scene.mask, scene.instances, scene.depth, kinds)))
        facts.append(plan.facts)
        captions.append(partial_caption(plan.facts, generator(seed, "partial caption", index)))
        labels.append(label_indices(plan.labels))
    images, mask, depth, texture, colour = (
        torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)
    )
    true = [[caption.is_true_of(f) for caption in captions] for f in facts]
    return Batch(
        images=images,
        labels={name: torch.tensor([row[name] for row in labels]) for name in LABEL_CLASSES},
        mask=mask,
        log_depth=depth,
        texture=texture,
        colour=colour,
        captions=[caption.text for caption in captions],
        true=torch.tensor(true, dtype=torch.float32),
    )


def batches(seed: int, first: int, total: int, n: int, side: int, workers: int) -> Iterator[Batch]:
    """Yield batches of ``n`` scenes from index ``first`` up to ``total``, in order.

    With no workers one thread of this process renders ahead; else so many processes do.
    """
    pool: Executor = (
        ProcessPoolExecutor(workers, get_context("spawn")) if workers else ThreadPoolExecutor(1)
    )
    waiting: deque[Future[Batch]] = deque()
    starts = iter(range(first, total - n + 1, n))
    with pool:
        for start in starts:
            settings = settings_at(start / total)
            waiting.append(pool.submit(render_batch, seed, start, n, side, settings))
            if len(waiting) >= AHEAD * max(workers, 1):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _patch_targets(
    mask: np.ndarray, instances: np.ndarray, depth: np.ndarray, kinds: list[tuple[int, int]]
) -> tuple[np.ndarray, ...]:
    grid = mask.shape[0] // PATCH
    line = np.arange(grid * PATCH) // PATCH
    patch = (line[:, None] * grid + line[None, :]).ravel()
    shares = _shares(patch, mask, grid * grid, len(MASK_CLASSES))
    owned = _shares(patch, instances, grid * grid, len(kinds) + 1)[:, 1:]
    mean_log = np.bincount(patch, np.log(depth).ravel()) / PATCH**2
    asked = owned.max(1) >= OBJECT_SHARE
    found = np.array(kinds, dtype=np.int64)[owned.argmax(1)]
    texture, colour = np.where(asked[:, None], found, NOT_ASKED).T
    return shares, mean_log.astype(np.float32), texture.copy(), colour.copy()


def _shares(patch: np.ndarray, values: np.ndarray, n_patches: int, n: int) -> np.ndarray:
    counts = np.bincount(patch * n + values.ravel(), minlength=n_patches * n)
    return (counts.reshape(n_patches, n) / PATCH**2).astype(np.float32)
