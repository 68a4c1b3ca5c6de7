"""One scene: picture, semantic mask, depth, labels and caption, a function of (seed, index)."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitscope.draws import generator
from vitscope.images.scenes.captions import SceneFacts, full_caption, state_facts
from vitscope.images.scenes.labels import SceneLabels, label
from vitscope.images.scenes.layout import Layout, draw_layout
from vitscope.images.scenes.picture import render
from vitscope.images.scenes.settings import SceneSettings
from vitscope.images.scenes.stage import build_stage
from vitscope.images.scenes.visible import Sighting, settle

_DEFAULT = SceneSettings()


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """A scene before any pixel: the same at every resolution."""

    layout: Layout
    seen: Sighting
    labels: SceneLabels
    facts: SceneFacts


@dataclass(frozen=True, slots=True)
class Scene:
    """A rendered scene.

    Attributes:
        image: RGB bytes [3, H, W].
        mask: indices into `vocabulary.MASK_CLASSES` [H, W]; 0 does not occur.
        instances: object + 1, or 0 where there is none [H, W].
        depth: metres along the optical axis [H, W], float32; sky is at `optics.FAR_M`.
        labels, caption, facts: what is true of it.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    depth: NDArray[np.float32]
    labels: SceneLabels
    caption: str
    facts: SceneFacts


def plan_scene(seed: int, index: int, settings: SceneSettings = _DEFAULT) -> ScenePlan:
    """Draw scene ``index`` of the set ``seed``; equal arguments give equal scenes anywhere."""
    rng = generator(seed, "scene", index)
    drawn = draw_layout(rng, settings)
    reach = (min(drawn.back - 1.0, 8.0), drawn.half_width if drawn.backdrop == "room" else math.inf)
    layout, seen = settle(drawn, rng, settings, reach)
    return ScenePlan(layout, seen, label(layout, seen), state_facts(layout, seen))


def render_scene(seed: int, index: int, side: int, settings: SceneSettings = _DEFAULT) -> Scene:
    """Draw and render scene ``index`` of the set ``seed`` at ``side`` × ``side`` pixels."""
    if side < 1:
        raise ValueError(f"side must be at least 1 pixel, not {side}")
    return render_plan(plan_scene(seed, index, settings), side)


def render_plan(plan: ScenePlan, side: int) -> Scene:
    """Render a drawn scene; another ``side`` shows the same scene."""
    image, mask, instances, depth = render(build_stage(plan.layout), side)
    caption = full_caption(plan.facts).text
    return Scene(image, mask, instances, depth, plan.labels, caption, plan.facts)
