"""A layout as the compiled loops take it: one flat record of numbers and one table of solids."""

import math
from typing import NamedTuple

import numpy as np

from vitscope.images.scenes.compiled import Numbers, Triple
from vitscope.images.scenes.geometry import N_FIELDS
from vitscope.images.scenes.layout import Layout
from vitscope.images.scenes.optics import HALF_VIEW
from vitscope.images.scenes.vocabulary import (
    BACKDROPS,
    FIRST_SHAPE,
    GROUNDS,
    MATERIALS,
    SHAPES,
    TEXTURES,
    TIMES,
)

ROOM, COURT, MOUNTAINS, SKYLINE = range(4)
NIGHT = TIMES.index("night")


class Stage(NamedTuple):
    """What every ray needs; angles come as their cosine and sine.

    ``openings`` has rows [mask class, left, right, bottom, top]; ``skins`` one row an object:
    mask class, texture, material, RGB.
    """

    eye: float
    pitch: tuple[float, float]
    yaw: tuple[float, float]
    half_view: float
    ground: int
    backdrop: int
    time: int
    back: float
    top: float
    half_width: float
    ground_scale: float
    ground_turn: tuple[float, float]
    seed: int
    light: Triple
    direct: Triple
    ambient: Triple
    sky_gain: float
    grain: float
    palette: Numbers
    openings: Numbers
    solids: Numbers
    skins: Numbers


def build_stage(layout: Layout) -> Stage:
    """Turn words into indices and objects into solids."""
    solids = [row for i, thing in enumerate(layout.things) for row in thing.solids(i)]
    skins = [
        [
            FIRST_SHAPE + SHAPES.index(thing.shape),
            TEXTURES.index(thing.texture),
            MATERIALS.index(thing.material),
            *thing.paint,
        ]
        for thing in layout.things
    ]
    openings = [[o.mask_class, o.left, o.right, o.bottom, o.top] for o in layout.openings]
    return Stage(
        eye=float(layout.eye),
        pitch=_turn(layout.pitch),
        yaw=_turn(layout.yaw),
        half_view=HALF_VIEW,
        ground=GROUNDS.index(layout.ground),
        backdrop=BACKDROPS.index(layout.backdrop),
        time=TIMES.index(layout.time),
        back=float(layout.back),
        top=float(layout.top),
        half_width=float(layout.half_width),
        ground_scale=float(layout.ground_scale),
        ground_turn=_turn(layout.ground_turn),
        seed=layout.pattern_seed,
        light=layout.light.direction,
        direct=layout.light.direct,
        ambient=layout.light.ambient,
        sky_gain=layout.light.sky_gain,
        grain=float(layout.grain),
        palette=layout.palette,
        openings=_table(openings, 5),
        solids=_table(solids, N_FIELDS),
        skins=_table(skins, 6),
    )


def _table(rows: list[list[float]], n_columns: int) -> Numbers:
    return np.array(rows, dtype=np.float64).reshape(len(rows), n_columns)


def _turn(angle: float) -> tuple[float, float]:
    return (math.cos(angle), math.sin(angle))
