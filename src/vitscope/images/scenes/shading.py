"""Colours what a ray has met: paint and pattern, light, shadow, gloss, sky."""

import math

from vitscope.images.scenes.compiled import Triple, compiled
from vitscope.images.scenes.geometry import ELLIPSOID, normal, own_coordinates
from vitscope.images.scenes.stage import NIGHT, Stage
from vitscope.images.scenes.texture import ground_share, lattice, object_share, value_noise
from vitscope.images.scenes.tracing import NEAR, SIDE_WALL, first_hit, first_solid
from vitscope.images.scenes.vocabulary import (
    BUILDING,
    CEILING,
    DOOR,
    FIRST_SHAPE,
    MOUNTAIN,
    SKY,
    WINDOW,
)

GROUND_ROW, SECOND_ROW, WALL_ROW, CEILING_ROW, LOW_SKY, HIGH_SKY = range(6)
DOOR_ROW, WINDOW_ROW, MOUNTAIN_ROW, BUILDING_ROW = range(6, 10)

HAZE = 0.3
"""Share of the low sky's colour in whatever stands tens of metres away."""


@compiled
def _sky(stage: Stage, dx: float, dy: float, dz: float) -> Triple:
    rise = dy / math.sqrt(dx * dx + dy * dy + dz * dz)
    high = min(max(1.8 * rise, 0.0), 1.0)
    cloud = 0.10 * max(value_noise(2.5 * dx / dz, 7.0 * dy / dz, stage.seed + 5) - 0.5, 0.0)
    low_row, high_row = stage.palette[LOW_SKY], stage.palette[HIGH_SKY]
    gain = stage.sky_gain
    return (
        gain * (low_row[0] + high * (high_row[0] - low_row[0]) + cloud),
        gain * (low_row[1] + high * (high_row[1] - low_row[1]) + cloud),
        gain * (low_row[2] + high * (high_row[2] - low_row[2]) + cloud),
    )


@compiled
def _backdrop(stage: Stage, mask_class: int, x: float, y: float) -> Triple:
    """Paint of mountains and buildings, before light; (x, y) in metres on the backdrop."""
    if mask_class == MOUNTAIN:
        tone = 0.75 + 0.5 * value_noise(x / 3.0, y / 2.0, stage.seed + 9)
        paint = stage.palette[MOUNTAIN_ROW]
        return tone * paint[0], tone * paint[1], tone * paint[2]
    block = math.floor(x / 4.0 + lattice(0, 1, stage.seed))
    tone = 0.7 + 0.6 * lattice(block, 4, stage.seed)
    u, v = x / 1.3 - math.floor(x / 1.3), y / 1.5 - math.floor(y / 1.5)
    if 0.25 < u < 0.75 and 0.3 < v < 0.75:
        lit = lattice(math.floor(x / 1.3), math.floor(y / 1.5), stage.seed + 6) < 0.4
        if stage.time == NIGHT and lit:
            return 2.2, 1.9, 1.1
        tone = 0.45 * tone
    paint = stage.palette[BUILDING_ROW]
    return tone * paint[0], tone * paint[1], tone * paint[2]


@compiled
def _object_paint(
    stage: Stage, solid: int, x: float, y: float, z: float, nx: float, nz: float, blur: float
) -> Triple:
    """Paint of an object at a point of its surface, with its pattern."""
    row = stage.solids[solid]
    skin = stage.skins[int(row[1])]
    u, v, w = own_coordinates(row, x, y, z)
    if int(row[0]) == ELLIPSOID:  # around and up, as a globe is printed
        along, up = math.atan2(w, u) * row[5], v * row[6]
    else:
        # the face that is seen decides along which axes dots run
        cos, sin = row[8], row[9]
        faces_u = abs(cos * nx + sin * nz) > abs(cos * nz - sin * nx)
        flat = nx * nx + nz * nz < 0.2
        along = u * row[5] if flat or not faces_u else w * row[7]
        up = w * row[7] if flat else v * row[6]
    share = object_share(int(skin[1]), y, along, up, blur)
    bright = skin[3] + skin[4] + skin[5] > 1.5
    keep, add = (1.0 - 0.68 * share, 0.0) if bright else (1.0 - 0.7 * share, 0.62 * share)
    return keep * skin[3] + add, keep * skin[4] + add, keep * skin[5] + add


@compiled
def _surface(
    stage: Stage, mask_class: int, which: int, x: float, z: float, blur: float
) -> tuple[Triple, Triple]:
    """Return paint and normal of walls, ceiling, openings and ground at a point."""
    if mask_class <= 4:
        cos, sin = stage.ground_turn
        share = ground_share(
            stage.ground, cos * x + sin * z, cos * z - sin * x, stage.ground_scale, stage.seed, blur
        )
        a, b = stage.palette[GROUND_ROW], stage.palette[SECOND_ROW]
        paint = (
            a[0] + share * (b[0] - a[0]),
            a[1] + share * (b[1] - a[1]),
            a[2] + share * (b[2] - a[2]),
        )
        return paint, (0.0, 1.0, 0.0)
    row = WALL_ROW
    if mask_class == CEILING:
        row = CEILING_ROW
    elif mask_class == DOOR:
        row = DOOR_ROW
    elif mask_class == WINDOW:
        row = WINDOW_ROW
    paint = (stage.palette[row, 0], stage.palette[row, 1], stage.palette[row, 2])
    if which == SIDE_WALL:
        return paint, (-1.0 if x > 0.0 else 1.0, 0.0, 0.0)
    return paint, (
        0.0,
        -1.0 if mask_class == CEILING else 0.0,
        0.0 if mask_class == CEILING else -1.0,
    )


@compiled
def _lit(stage: Stage, paint: Triple, direct: float, gloss: float) -> Triple:
    return (
        paint[0] * (stage.ambient[0] + direct * stage.direct[0]) + gloss * stage.direct[0],
        paint[1] * (stage.ambient[1] + direct * stage.direct[1]) + gloss * stage.direct[1],
        paint[2] * (stage.ambient[2] + direct * stage.direct[2]) + gloss * stage.direct[2],
    )


@compiled
def _object_colour(
    stage: Stage,
    which: int,
    x: float,
    y: float,
    z: float,
    dx: float,
    dy: float,
    dz: float,
    blur: float,
) -> Triple:
    row = stage.solids[which]
    n = normal(row, x, y, z)
    lx, ly, lz = stage.light
    facing = n[0] * lx + n[1] * ly + n[2] * lz
    gloss = 0.0
    if facing > 0.0:
        blocked, _ = first_solid(stage.solids, x, y, z, lx, ly, lz, 0.01)
        facing = 0.0 if blocked < math.inf else facing
    if facing > 0.0 and stage.skins[int(row[1]), 2] > 0.5:
        length = math.sqrt(dx * dx + dy * dy + dz * dz)
        hx, hy, hz = lx - dx / length, ly - dy / length, lz - dz / length
        half = (n[0] * hx + n[1] * hy + n[2] * hz) / math.sqrt(hx * hx + hy * hy + hz * hz)
        gloss = 0.9 * max(half, 0.0) ** 28
    paint = _object_paint(stage, which, x, y, z, n[0], n[2], blur)
    # light from all sides is a little weaker from below
    low = 0.85 + 0.15 * n[1]
    return _lit(stage, (low * paint[0], low * paint[1], low * paint[2]), facing, gloss)


@compiled
def seen(
    stage: Stage, dx: float, dy: float, dz: float, pixel: float
) -> tuple[float, float, float, float, int, int]:
    """Return (red, green, blue, depth, mask class, which solid) along a camera ray.

    ``pixel`` is the width of a pixel at one metre of depth.
    """
    depth, mask_class, which = first_hit(stage, dx, dy, dz)
    if mask_class == SKY:
        r, g, b = _sky(stage, dx, dy, dz)
        return r, g, b, depth, mask_class, which
    x, y, z = depth * dx, stage.eye + depth * dy, depth * dz
    blur = depth * pixel
    lx, ly, lz = stage.light
    if mask_class >= FIRST_SHAPE:
        r, g, b = _object_colour(stage, which, x, y, z, dx, dy, dz, blur)
    elif mask_class in (MOUNTAIN, BUILDING):
        r, g, b = _lit(stage, _backdrop(stage, mask_class, x, y), 0.5 - 0.5 * lz, 0.0)
        sr, sg, sb = _sky(stage, dx, 0.0, dz)
        r, g, b = r + HAZE * (sr - r), g + HAZE * (sg - g), b + HAZE * (sb - b)
    elif mask_class == WINDOW:
        r, g, b = _sky(stage, dx, max(dy, 0.0), dz)
    else:
        slant = blur / math.sqrt(abs(dy) + 0.05) if mask_class <= 4 else blur
        paint, n = _surface(stage, mask_class, which, x, z, slant)
        facing = n[0] * lx + n[1] * ly + n[2] * lz
        direct = facing if mask_class <= 4 else 0.45 + 0.45 * facing
        if direct > 0.0 and mask_class != CEILING and stage.solids.shape[0] > 0:
            blocked, _ = first_solid(stage.solids, x, y, z, lx, ly, lz, NEAR)
            direct = 0.0 if blocked < math.inf else direct
        r, g, b = _lit(stage, paint, direct, 0.0)
    return r, g, b, depth, mask_class, which
