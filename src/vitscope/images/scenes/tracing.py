"""Casts one ray: what it meets first, at which depth.

A camera ray advances one metre along the optical axis for each unit, so the distance along it *is*
the metric depth of a depth camera.
"""

import math

import numpy as np

from vitscope.images.scenes.compiled import Numbers, Triple, compiled
from vitscope.images.scenes.geometry import hit
from vitscope.images.scenes.optics import FAR_M
from vitscope.images.scenes.stage import MOUNTAINS, ROOM, SKYLINE, Stage
from vitscope.images.scenes.texture import lattice, value_noise
from vitscope.images.scenes.vocabulary import BUILDING, CEILING, MOUNTAIN, SKY, WALL

NEAR = 1e-4
"""Metres; a shadow ray starts this far from its surface."""

SIDE_WALL = -2
NO_SOLID = -1
"""Values of "which solid" for what is no object; side walls need another normal than the back."""


@compiled
def camera_ray(stage: Stage, u: float, v: float) -> Triple:
    """Return the direction through the point (u, v) of the picture, both in [0, 1], v downward."""
    x, y = (2.0 * u - 1.0) * stage.half_view, (1.0 - 2.0 * v) * stage.half_view
    cos, sin = stage.pitch
    rise, ahead = y * cos - sin, y * sin + cos
    cos, sin = stage.yaw
    return x * cos + ahead * sin, rise, ahead * cos - x * sin


@compiled
def first_solid(
    solids: Numbers, ox: float, oy: float, oz: float, dx: float, dy: float, dz: float, near: float
) -> tuple[float, int]:
    """Return (distance, row) of the first solid that a ray enters; (inf, -1) if none."""
    best, which = math.inf, NO_SOLID
    for i in range(solids.shape[0]):
        t = hit(solids[i], ox, oy, oz, dx, dy, dz, near)
        if t < best:
            best, which = t, i
    return best, which


@compiled
def skyline_height(stage: Stage, x: float) -> float:
    """Return the height in metres of the backdrop at ``x`` metres to the right."""
    if stage.backdrop == MOUNTAINS:
        slope = 0.7 * value_noise(x / 9.0, 0.5, stage.seed)
        return stage.top * (0.25 + slope + 0.3 * value_noise(x / 2.5, 7.5, stage.seed))
    if stage.backdrop == SKYLINE:
        block = math.floor(x / 4.0 + lattice(0, 1, stage.seed))
        return stage.top * (0.25 + 0.95 * lattice(block, 3, stage.seed))
    return stage.top


@compiled
def backdrop_class(stage: Stage, x: float, y: float) -> int:
    """Return the mask class of the back wall, the mountains or the skyline at (x, y)."""
    if stage.backdrop == MOUNTAINS:
        return MOUNTAIN
    if stage.backdrop == SKYLINE:
        return BUILDING
    for i in range(stage.openings.shape[0]):
        o = stage.openings[i]
        if o[1] <= x <= o[2] and o[3] <= y <= o[4]:
            return int(o[0])
    return WALL


@compiled
def first_hit(stage: Stage, dx: float, dy: float, dz: float) -> tuple[float, int, int]:
    """Return (depth in metres, mask class, which solid) of what a camera ray meets first."""
    depth, mask_class, which = FAR_M, SKY, NO_SOLID
    if dy < 0.0 and -stage.eye / dy < depth:
        depth, mask_class = -stage.eye / dy, stage.ground + 1
    if dz > 0.0:
        t = stage.back / dz
        x, y = t * dx, stage.eye + t * dy
        if t < depth and y <= skyline_height(stage, x):
            depth, mask_class = t, backdrop_class(stage, x, y)
    if stage.backdrop == ROOM:
        if dy > 0.0 and (stage.top - stage.eye) / dy < depth:
            depth, mask_class = (stage.top - stage.eye) / dy, CEILING
        if abs(dx) > 0.0 and stage.half_width / abs(dx) < depth:
            depth, mask_class, which = stage.half_width / abs(dx), WALL, SIDE_WALL
    t, solid = first_solid(stage.solids, 0.0, stage.eye, 0.0, dx, dy, dz, NEAR)
    if t < depth:
        return t, int(stage.skins[int(stage.solids[solid, 1]), 0]), solid
    return depth, mask_class, which


@compiled
def measure_objects(stage: Stage, side: int) -> tuple[Numbers, Numbers, Numbers]:
    """Return (pixels, mean column, least depth) of each object's visible part; no walls, no colour.

    The mean column is in pixels from the left edge; an object that nowhere shows has depth inf.
    """
    n = stage.skins.shape[0]
    area, across, nearest = np.zeros(n), np.zeros(n), np.full(n, np.inf)
    for row in range(side):
        for column in range(side):
            dx, dy, dz = camera_ray(stage, (column + 0.5) / side, (row + 0.5) / side)
            t, solid = first_solid(stage.solids, 0.0, stage.eye, 0.0, dx, dy, dz, NEAR)
            if solid >= 0:
                owner = int(stage.solids[solid, 1])
                area[owner] += 1.0
                across[owner] += column + 0.5
                nearest[owner] = min(nearest[owner], t)
    return area, across / np.maximum(area, 1.0), nearest
