"""One scene: picture, semantic mask, depth, labels and caption, a function of (seed, index).

Where an image set has the path of a file, a scene has its address: ``scenes:SEED@SIDE/INDEX``.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitscope.draws import generator
from vitscope.embedded.labels import (
    SceneFacts,
    Sighting,
    full_caption,
    scene_facts,
    scene_labels,
    settle,
)
from vitscope.embedded.layout import SceneLayout, SceneSettings, draw_kinds, draw_layout
from vitscope.embedded.rendering import render
from vitscope.embedded.vocabulary import BACKDROPS, GROUNDS, PLACE_OF

RENDERER = 1
"""Counts up whenever a scene of the same address gets other pixels."""

_ADDRESS = re.compile(r"scenes:(\d+)@(\d+)/(\d+)")
_DEFAULT = SceneSettings()


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """A scene before any pixel: the same at every resolution."""

    layout: SceneLayout
    seen: Sighting
    labels: dict[str, str]
    facts: SceneFacts


@dataclass(frozen=True, slots=True)
class Scene:
    """A rendered scene.

    Attributes:
        image: RGB bytes [3, H, W].
        mask: indices into `vocabulary.MASK_CLASSES` [H, W]; 0 does not occur.
        instances: object + 1, or 0 where there is none [H, W].
        depth: metres along the optical axis [H, W], float32; sky is at `tracing.FAR_M`.
        labels: label -> class, as in `vocabulary.LABEL_CLASSES`.
        caption, facts: what is true of it.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    depth: NDArray[np.float32]
    labels: dict[str, str]
    caption: str
    facts: SceneFacts

    def picture(self) -> Image.Image:
        """Return the image for PIL, as RGB."""
        return Image.fromarray(np.ascontiguousarray(self.image.transpose(1, 2, 0)))


def plan_scene(seed: int, index: int, settings: SceneSettings = _DEFAULT) -> ScenePlan:
    """Draw scene ``index`` of the set ``seed``; equal arguments give equal scenes anywhere."""
    rng = generator(seed, "scene", index)
    layout, seen = settle(draw_layout(rng, settings), rng, settings)
    labels = scene_labels(layout, seen)
    return ScenePlan(layout, seen, labels, scene_facts(layout, seen, labels))


def scene_place(seed: int, index: int) -> str:
    """Return the place of a scene; nothing else of it is drawn."""
    ground, backdrop, _ = draw_kinds(generator(seed, "scene", index))
    return PLACE_OF[GROUNDS[ground], BACKDROPS[backdrop]]


def render_scene(seed: int, index: int, side: int, settings: SceneSettings = _DEFAULT) -> Scene:
    """Draw and render scene ``index`` of the set ``seed`` at ``side`` × ``side`` pixels."""
    if side < 1:
        raise ValueError(f"side must be at least 1 pixel, not {side}")
    return render_plan(plan_scene(seed, index, settings), side)


def render_plan(plan: ScenePlan, side: int) -> Scene:
    """Render a drawn scene; another ``side`` shows the same scene."""
    image, mask, instances, depth = render(plan.layout.world(), side)
    caption = full_caption(plan.facts).text
    return Scene(image, mask, instances, depth, plan.labels, caption, plan.facts)


@dataclass(frozen=True, slots=True)
class SceneAddress:
    """Where a rendered scene is: scene ``index`` of the set ``seed``, ``side`` pixels wide."""

    seed: int
    side: int
    index: int

    @property
    def path(self) -> Path:
        """What stands in for a file's path."""
        return Path(f"scenes:{self.seed}@{self.side}/{self.index}")

    @property
    def version(self) -> bytes:
        """What decides the pixels, to be hashed in place of a file's bytes."""
        return f"renderer {RENDERER} {self.path}".encode()

    def render(self) -> Image.Image:
        """Render the scene, as RGB."""
        return render_scene(self.seed, self.index, self.side).picture()


@lru_cache(maxsize=4096)
def scene_address(path: Path) -> SceneAddress | None:
    """Return the scene that ``path`` addresses; None for the path of a file."""
    found = _ADDRESS.fullmatch(str(path))
    return None if found is None else SceneAddress(*map(int, found.groups()))
