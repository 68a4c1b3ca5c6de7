"""Renders a world: what each ray has met is coloured, edges are smoothed, the camera adds noise.

Colour is paint and pattern under direct light, light from all sides, shadow and gloss.
"""

import math

import numpy as np
from numpy.typing import NDArray

from vitscope.compiled import compiled, compiled_entry
from vitscope.embedded.layout import ELLIPSOID, HALF_VIEW, Triple, World
from vitscope.embedded.texture import ground_share, lattice, object_share, value_noise
from vitscope.embedded.tracing import (
    NEAR,
    SIDE_WALL,
    camera_ray,
    dot,
    first_hit,
    first_solid,
    normal,
    own_coordinates,
)
from vitscope.embedded.vocabulary import (
    BUILDING,
    CEILING,
    DOOR,
    FIRST_SHAPE,
    MOUNTAIN,
    SKY,
    TIMES,
    WINDOW,
)

Bytes = NDArray[np.uint8]
Singles = NDArray[np.float32]
Picture = tuple[Bytes, Bytes, Bytes, Singles]

_GROUND, _SECOND, _WALL, _CEILING, _LOW_SKY, _HIGH_SKY, _DOOR, _, _MOUNTAIN, _BUILDING = range(10)
"""Rows of the palette; what shows in a window is the sky."""

_NIGHT = TIMES.index("night")

_HAZE = 0.3
"""Share of the low sky's colour in whatever stands tens of metres away."""

_CHANNEL_STEP = 5003
"""Sets the noise of the three channels apart; more than any picture has columns."""


@compiled
def _scaled(tone: float, paint: Triple) -> Triple:
    return tone * paint[0], tone * paint[1], tone * paint[2]


@compiled
def _mixed(a: Triple, b: Triple, share: float) -> Triple:
    # takes rows of tables as well
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1]), a[2] + share * (b[2] - a[2])


@compiled
def _sky(world: World, dx: float, dy: float, dz: float) -> Triple:
    rise = dy / math.sqrt(dx * dx + dy * dy + dz * dz)
    high = min(max(1.8 * rise, 0.0), 1.0)
    cloud = 0.10 * max(value_noise(2.5 * dx / dz, 7.0 * dy / dz, world.seed + 5) - 0.5, 0.0)
    r, g, b = _mixed(world.palette[_LOW_SKY], world.palette[_HIGH_SKY], high)
    return _scaled(world.sky_gain, (r + cloud, g + cloud, b + cloud))


@compiled
def _backdrop(world: World, mask_class: int, x: float, y: float) -> Triple:
    """Paint of mountains and buildings, before light; (x, y) in metres on the backdrop."""
    if mask_class == MOUNTAIN:
        tone = 0.75 + 0.5 * value_noise(x / 3.0, y / 2.0, world.seed + 9)
        return _scaled(tone, world.palette[_MOUNTAIN])
    block = math.floor(x / 4.0 + lattice(0, 1, world.seed))
    tone = 0.7 + 0.6 * lattice(block, 4, world.seed)
    u, v = x / 1.3 - math.floor(x / 1.3), y / 1.5 - math.floor(y / 1.5)
    if 0.25 < u < 0.75 and 0.3 < v < 0.75:
        lit = lattice(math.floor(x / 1.3), math.floor(y / 1.5), world.seed + 6) < 0.4
        if world.time == _NIGHT and lit:
            return 2.2, 1.9, 1.1
        tone = 0.45 * tone
    return _scaled(tone, world.palette[_BUILDING])


@compiled
def _object_paint(world: World, solid: int, point: Triple, n: Triple, blur: float) -> Triple:
    """Paint of an object at a point of its surface, with its pattern; ``n`` is the normal there."""
    row = world.solids[solid]
    skin = world.skins[int(row[1])]
    u, v, w = own_coordinates(row, point)
    if int(row[0]) == ELLIPSOID:  # around and up, as a globe is printed
        along, up = math.atan2(w, u) * row[5], v * row[6]
    else:
        # the face that is seen decides along which axes dots run
        nx, nz = n[0], n[2]
        cos, sin = row[8], row[9]
        faces_u = abs(cos * nx + sin * nz) > abs(cos * nz - sin * nx)
        flat = nx * nx + nz * nz < 0.2
        along = u * row[5] if flat or not faces_u else w * row[7]
        up = w * row[7] if flat else v * row[6]
    share = object_share(int(skin[1]), point[1], along, up, blur)
    bright = skin[3] + skin[4] + skin[5] > 1.5
    keep, add = (1.0 - 0.68 * share, 0.0) if bright else (1.0 - 0.7 * share, 0.62 * share)
    return keep * skin[3] + add, keep * skin[4] + add, keep * skin[5] + add


@compiled
def _surface(
    world: World, mask_class: int, which: int, point: Triple, blur: float
) -> tuple[Triple, Triple]:
    """Return paint and normal of walls, ceiling, doors and ground at a point."""
    x, z = point[0], point[2]
    if mask_class < SKY:  # the grounds
        cos, sin = world.ground_turn
        a, b = cos * x + sin * z, cos * z - sin * x
        share = ground_share(world.ground, a, b, world.ground_scale, world.seed, blur)
        return _mixed(world.palette[_GROUND], world.palette[_SECOND], share), (0.0, 1.0, 0.0)
    if mask_class == CEILING:
        return _scaled(1.0, world.palette[_CEILING]), (0.0, -1.0, 0.0)
    paint = _scaled(1.0, world.palette[_DOOR if mask_class == DOOR else _WALL])
    if which == SIDE_WALL:
        return paint, (-1.0 if x > 0.0 else 1.0, 0.0, 0.0)
    return paint, (0.0, 0.0, -1.0)


@compiled
def _lit(world: World, paint: Triple, direct: float, gloss: float) -> Triple:
    a, d = world.ambient, world.direct
    return (
        paint[0] * (a[0] + direct * d[0]) + gloss * d[0],
        paint[1] * (a[1] + direct * d[1]) + gloss * d[1],
        paint[2] * (a[2] + direct * d[2]) + gloss * d[2],
    )


@compiled
def _in_shadow(world: World, point: Triple, near: float) -> bool:
    return first_solid(world.solids, point, world.light, near)[0] < math.inf


@compiled
def _object_colour(world: World, which: int, point: Triple, ray: Triple, blur: float) -> Triple:
    row = world.solids[which]
    n = normal(row, point)
    facing, gloss = dot(n, world.light), 0.0
    if facing > 0.0 and _in_shadow(world, point, 0.01):
        facing = 0.0
    if facing > 0.0 and world.skins[int(row[1]), 2] > 0.5:
        # Blinn and Phong: how far the normal lies from half way between eye and light
        length = math.sqrt(dot(ray, ray))
        lx, ly, lz = world.light
        halfway = (lx - ray[0] / length, ly - ray[1] / length, lz - ray[2] / length)
        gloss = 0.9 * max(dot(n, halfway) / math.sqrt(dot(halfway, halfway)), 0.0) ** 28
    # light from all sides is a little weaker from below
    low = 0.85 + 0.15 * n[1]
    return _lit(world, _scaled(low, _object_paint(world, which, point, n, blur)), facing, gloss)


@compiled
def _seen(world: World, ray: Triple, pixel: float) -> tuple[Triple, float, int, int]:
    """Return (colour, depth, mask class, which solid) along a camera ray.

    ``pixel`` is the width of a pixel at one metre of depth.
    """
    depth, mask_class, which = first_hit(world, ray)
    dx, dy, dz = ray
    if mask_class == SKY:
        return _sky(world, dx, dy, dz), depth, mask_class, which
    point = (depth * dx, world.eye + depth * dy, depth * dz)
    blur = depth * pixel
    if mask_class >= FIRST_SHAPE:
        colour = _object_colour(world, which, point, ray, blur)
    elif mask_class in (MOUNTAIN, BUILDING):
        paint = _backdrop(world, mask_class, point[0], point[1])
        lit = _lit(world, paint, 0.5 - 0.5 * world.light[2], 0.0)
        colour = _mixed(lit, _sky(world, dx, 0.0, dz), _HAZE)
    elif mask_class == WINDOW:
        colour = _sky(world, dx, max(dy, 0.0), dz)
    else:
        on_ground = mask_class < SKY
        slant = blur / math.sqrt(abs(dy) + 0.05) if on_ground else blur
        paint, n = _surface(world, mask_class, which, point, slant)
        facing = dot(n, world.light)
        direct = facing if on_ground else 0.45 + 0.45 * facing
        if direct > 0.0 and mask_class != CEILING and _in_shadow(world, point, NEAR):
            direct = 0.0
        colour = _lit(world, paint, direct, 0.0)
    return colour, depth, mask_class, which


@compiled
def _is_edge(mask: Bytes, owners: Bytes, row: int, column: int) -> bool:
    side = mask.shape[0]
    here = (mask[row, column], owners[row, column])
    for i, j in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
        if 0 <= i < side and 0 <= j < side and (mask[i, j], owners[i, j]) != here:
            return True
    return False


@compiled
def _smooth_edges(world: World, colour: Singles, mask: Bytes, owners: Bytes) -> None:
    """Give pixels whose neighbour shows something else the mean of four rays."""
    side = mask.shape[0]
    pixel = 2.0 * HALF_VIEW / side
    for row in range(side):
        for column in range(side):
            if not _is_edge(mask, owners, row, column):
                continue
            total = (0.0, 0.0, 0.0)
            for i in range(4):
                u = (column + 0.25 + 0.5 * (i & 1)) / side
                v = (row + 0.25 + 0.5 * (i >> 1)) / side
                c = _seen(world, camera_ray(world, u, v), pixel)[0]
                total = total[0] + 0.25 * c[0], total[1] + 0.25 * c[1], total[2] + 0.25 * c[2]
            colour[row, column, 0], colour[row, column, 1], colour[row, column, 2] = total


@compiled
def _expose(world: World, colour: Singles) -> Bytes:
    side = colour.shape[0]
    image = np.empty((3, side, side), np.uint8)
    for row in range(side):
        for column in range(side):
            for c in range(3):
                i = column + _CHANNEL_STEP * c
                # three uniform draws add up to nearly a normal one, of spread 1/2
                noise = lattice(i, row, world.seed) + lattice(i, row, world.seed + 1)
                noise += lattice(i, row, world.seed + 2) - 1.5
                value = colour[row, column, c] + 2.0 * world.grain * noise
                image[c, row, column] = int(255.0 * min(max(value, 0.0), 1.0) + 0.5)
    return image


@compiled_entry
def render(world: World, side: int) -> Picture:
    """Render at ``side`` × ``side`` pixels.

    Returns:
        image [3, H, W]; mask classes [H, W]; object + 1, or 0 where there is none, [H, W];
        depth along the optical axis in metres [H, W].
    """
    pixel = 2.0 * HALF_VIEW / side
    colour = np.empty((side, side, 3), np.float32)
    mask = np.empty((side, side), np.uint8)
    owners = np.zeros((side, side), np.uint8)
    depths = np.empty((side, side), np.float32)
    for row in range(side):
        for column in range(side):
            ray = camera_ray(world, (column + 0.5) / side, (row + 0.5) / side)
            (r, g, b), depth, mask_class, which = _seen(world, ray, pixel)
            colour[row, column, 0], colour[row, column, 1], colour[row, column, 2] = r, g, b
            mask[row, column], depths[row, column] = mask_class, depth
            if which >= 0:
                owners[row, column] = int(world.solids[which, 1]) + 1
    _smooth_edges(world, colour, mask, owners)
    return _expose(world, colour), mask, owners, depths
