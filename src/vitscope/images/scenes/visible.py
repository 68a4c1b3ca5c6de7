"""Makes what is left-most, nearest and largest plain to see: re-draws objects until it is.

Decided on one coarse picture of the objects alone, so a scene's objects and labels are the same at
every resolution.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vitscope.images.scenes.layout import Layout
from vitscope.images.scenes.settings import SceneSettings
from vitscope.images.scenes.stage import build_stage
from vitscope.images.scenes.things import draw_things
from vitscope.images.scenes.tracing import measure_objects
from vitscope.images.scenes.vocabulary import MIN_OBJECTS

REFERENCE_SIDE = 56
"""Pixels across the coarse picture."""

MIN_AREA = 0.011
"""Share of the picture that an object must show, or it is taken out (0.7 of a patch at 64 px)."""

SIDE_GAP = 0.04
"""Least gap between the centroids of the left-most object and the next, in picture widths."""

DEPTH_GAP_M = 0.2
"""Least gap between the depths at which the nearest object and the next begin."""

AREA_GAP = 1.15
"""Least ratio between the visible areas of the largest object and the next."""

MIDDLE_GAP = 0.02
"""Least distance of the nearest object's centroid from the picture's middle."""

_MAX_DRAWS = 60
"""Re-draws; the accepted share is about one half, so running out is a matter of 1e-15."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """Where each object shows, in the order of the layout's things.

    Attributes:
        area: shares of the picture; ``across`` is the mask's centroid, 0 left to 1 right.
        nearest: least depth in metres.
    """

    area: NDArray[np.float64]
    across: NDArray[np.float64]
    nearest: NDArray[np.float64]


def sight(layout: Layout, side: int = REFERENCE_SIDE) -> Sighting:
    """Trace the layout's objects and measure each one's visible part."""
    area, across, nearest = measure_objects(build_stage(layout), side)
    return Sighting(area / side**2, across / side, nearest)


def settle(
    layout: Layout, rng: np.random.Generator, settings: SceneSettings, reach: tuple[float, float]
) -> tuple[Layout, Sighting]:
    """Take out hidden objects and re-draw the rest until every label has one clear answer."""
    wanted = max(len(layout.things), MIN_OBJECTS)
    for attempt in range(_MAX_DRAWS):
        layout, seen = _without_hidden(layout)
        if len(layout.things) >= MIN_OBJECTS and is_clear(seen):
            return layout, seen
        if attempt % 4 == 3:
            wanted = max(wanted - 1, MIN_OBJECTS)
        things = draw_things(rng, wanted, layout.yaw, reach, settings.object_scale)
        layout = replace(layout, things=things)
    raise AssertionError("no clear scene in 60 draws")


def is_clear(seen: Sighting) -> bool:
    """Whether left-most, nearest and largest each lead by their gap."""
    left, near, large = np.sort(seen.across), np.sort(seen.nearest), np.sort(seen.area)
    middle = abs(float(seen.across[int(seen.nearest.argmin())]) - 0.5)
    return bool(
        left[1] - left[0] >= SIDE_GAP
        and near[1] - near[0] >= DEPTH_GAP_M
        and large[-1] >= AREA_GAP * large[-2]
        and middle >= MIDDLE_GAP
    )


def _without_hidden(layout: Layout) -> tuple[Layout, Sighting]:
    seen = sight(layout)
    while len(layout.things) and seen.area.min() < MIN_AREA:
        # one at a time: without the smallest, others may show enough
        smallest = int(seen.area.argmin())
        rest = (*layout.things[:smallest], *layout.things[smallest + 1 :])
        layout = replace(layout, things=rest)
        seen = sight(layout)
    return layout, seen
