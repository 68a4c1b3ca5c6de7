"""Casts one ray: what it meets first, at which depth.

A ray is an origin and a direction; distances are in units of the direction's length. A camera ray
advances one metre along the optical axis for each unit, so the distance along it *is* the metric
depth of a depth camera. Solids are rows of ``World.solids``; the camera is never inside one.
"""

import math

import numpy as np

from vitscope.compiled import compiled, compiled_entry
from vitscope.embedded.layout import (
    CONE,
    CUBOID,
    CYLINDER,
    ELLIPSOID,
    HALF_VIEW,
    Numbers,
    Triple,
    World,
)
from vitscope.embedded.texture import lattice, value_noise
from vitscope.embedded.vocabulary import (
    BACKDROPS,
    BUILDING,
    CEILING,
    MOUNTAIN,
    SKY,
    WALL,
)

FAR_M = 40.0
"""Sky and anything beyond is given this depth, in metres."""

NEAR = 1e-4
"""Metres; a shadow ray starts this far from its surface."""

SIDE_WALL = -2
NO_SOLID = -1
"""Values of "which solid" for what is no object; side walls need another normal than the back."""

_ROOM = BACKDROPS.index("room")
_MOUNTAINS = BACKDROPS.index("mountains")
_SKYLINE = BACKDROPS.index("skyline")

_GRAZING = 1e-9
"""A direction component below this is parallel to a face."""


@compiled
def dot(a: Triple, b: Triple) -> float:
    """Return the inner product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


# In their own axes solids span -1 to 1: from `e` along `f`, distances stay what they were.


@compiled
def _ellipsoid(e: Triple, f: Triple, near: float) -> float:
    # the nearer root of |e + t f|² = 1: the unit sphere
    a, b = dot(f, f), dot(e, f)
    root = b * b - a * (dot(e, e) - 1.0)
    if root < 0.0:
        return math.inf
    t = (-b - math.sqrt(root)) / a
    return t if t > near else math.inf


@compiled
def _cuboid(e: Triple, f: Triple, near: float) -> float:
    # inside between the last entry and the first exit of the three pairs of parallel planes
    enter, leave = -math.inf, math.inf
    for i in range(3):
        if abs(f[i]) < _GRAZING:
            if abs(e[i]) > 1.0:
                return math.inf
            continue
        low, high = (-1.0 - e[i]) / f[i], (1.0 - e[i]) / f[i]
        enter, leave = max(enter, min(low, high)), min(leave, max(low, high))
    return enter if near < enter <= leave else math.inf


@compiled
def _disc(e: Triple, f: Triple, y: float, near: float) -> float:
    # the level unit disc at height y
    if abs(f[1]) > _GRAZING:
        t = (y - e[1]) / f[1]
        x, z = e[0] + t * f[0], e[2] + t * f[2]
        if t > near and x * x + z * z <= 1.0:
            return t
    return math.inf


@compiled
def _cylinder(e: Triple, f: Triple, near: float) -> float:
    # x² + z² = 1 between y = -1 and 1, and the end that faces the ray
    a = f[0] * f[0] + f[2] * f[2]
    b = e[0] * f[0] + e[2] * f[2]
    root = b * b - a * (e[0] * e[0] + e[2] * e[2] - 1.0)
    if root < 0.0:
        return math.inf
    if a > _GRAZING:
        t = (-b - math.sqrt(root)) / a
        if t > near and abs(e[1] + t * f[1]) <= 1.0:
            return t
    return _disc(e, f, math.copysign(1.0, -f[1]), near)


@compiled
def _cone(e: Triple, f: Triple, near: float) -> float:
    # x² + z² = ((1 - y) / 2)²: radius 1 at y = -1, apex at y = 1; both roots may lie on it
    best = math.inf
    h, g = 0.5 * (1.0 - e[1]), -0.5 * f[1]
    a = f[0] * f[0] + f[2] * f[2] - g * g
    b = e[0] * f[0] + e[2] * f[2] - h * g
    c = e[0] * e[0] + e[2] * e[2] - h * h
    root = b * b - a * c
    if root >= 0.0 and abs(a) > _GRAZING:
        width = math.sqrt(root)
        for t in ((-b - width) / a, (-b + width) / a):
            if near < t < best and abs(e[1] + t * f[1]) <= 1.0:
                best = t
    return min(best, _disc(e, f, -1.0, near))


@compiled
def _in_own_axes(s: Numbers, x: float, y: float, z: float) -> Triple:
    # turned back about the vertical, and scaled to half-extents of 1
    cos, sin = s[8], s[9]
    return (cos * x + sin * z) / s[5], y / s[6], (cos * z - sin * x) / s[7]


@compiled
def own_coordinates(s: Numbers, point: Triple) -> Triple:
    """Return a point in the solid's own axes, where the solid spans -1 to 1."""
    return _in_own_axes(s, point[0] - s[2], point[1] - s[3], point[2] - s[4])


@compiled
def hit(s: Numbers, origin: Triple, ray: Triple, near: float) -> float:
    """Return the distance beyond ``near`` at which a ray enters the solid; inf if it misses."""
    e, f = own_coordinates(s, origin), _in_own_axes(s, ray[0], ray[1], ray[2])
    kind = int(s[0])
    if kind == ELLIPSOID:
        return _ellipsoid(e, f, near)
    if kind == CUBOID:
        return _cuboid(e, f, near)
    if kind == CYLINDER:
        return _cylinder(e, f, near)
    return _cone(e, f, near)


@compiled
def normal(s: Numbers, point: Triple) -> Triple:
    """Return the outward unit normal of the solid ``s`` at a point of its surface."""
    u, v, w = own_coordinates(s, point)
    kind = int(s[0])
    nu, nv, nw = u, v, w
    if kind == CUBOID:
        au, av, aw = abs(u), abs(v), abs(w)
        nu = math.copysign(1.0, u) if au >= av and au >= aw else 0.0
        nv = math.copysign(1.0, v) if av > au and av >= aw else 0.0
        nw = math.copysign(1.0, w) if aw > au and aw > av else 0.0
    elif kind == CYLINDER:
        on_cap = abs(v) > u * u + w * w
        nu, nv, nw = (0.0, math.copysign(1.0, v), 0.0) if on_cap else (u, 0.0, w)
    elif kind == CONE:
        nu, nv, nw = (u, 0.25 * (1.0 - v), w) if v > -1.0 + 1e-6 else (0.0, -1.0, 0.0)
    # normals scale with the inverse of the half-extents
    nu, nv, nw = nu / s[5], nv / s[6], nw / s[7]
    length = math.sqrt(nu * nu + nv * nv + nw * nw) + 1e-12
    nx, nz = s[8] * nu - s[9] * nw, s[9] * nu + s[8] * nw
    return nx / length, nv / length, nz / length


@compiled
def camera_ray(world: World, u: float, v: float) -> Triple:
    """Return the direction through the point (u, v) of the picture, both in [0, 1], v downward."""
    x, y = (2.0 * u - 1.0) * HALF_VIEW, (1.0 - 2.0 * v) * HALF_VIEW
    cos, sin = world.pitch
    rise, ahead = y * cos - sin, y * sin + cos
    cos, sin = world.yaw
    return x * cos + ahead * sin, rise, ahead * cos - x * sin


@compiled
def first_solid(solids: Numbers, origin: Triple, ray: Triple, near: float) -> tuple[float, int]:
    """Return (distance, row) of the first solid that a ray enters; (inf, -1) if none."""
    best, which = math.inf, NO_SOLID
    for i in range(solids.shape[0]):
        t = hit(solids[i], origin, ray, near)
        if t < best:
            best, which = t, i
    return best, which


@compiled
def _skyline_height(world: World, x: float) -> float:
    # metres of the backdrop's height at x metres to the right
    if world.backdrop == _MOUNTAINS:
        slope = 0.7 * value_noise(x / 9.0, 0.5, world.seed)
        return world.top * (0.25 + slope + 0.3 * value_noise(x / 2.5, 7.5, world.seed))
    if world.backdrop == _SKYLINE:
        block = math.floor(x / 4.0 + lattice(0, 1, world.seed))
        return world.top * (0.25 + 0.95 * lattice(block, 3, world.seed))
    return world.top


@compiled
def _backdrop_class(world: World, x: float, y: float) -> int:
    if world.backdrop == _MOUNTAINS:
        return MOUNTAIN
    if world.backdrop == _SKYLINE:
        return BUILDING
    for i in range(world.openings.shape[0]):
        o = world.openings[i]
        if o[1] <= x <= o[2] and o[3] <= y <= o[4]:
            return int(o[0])
    return WALL


@compiled
def first_hit(world: World, ray: Triple) -> tuple[float, int, int]:
    """Return (depth in metres, mask class, which solid) of what a camera ray meets first."""
    dx, dy, dz = ray
    depth, mask_class, which = FAR_M, SKY, NO_SOLID
    if dy < 0.0 and -world.eye / dy < depth:
        depth, mask_class = -world.eye / dy, world.ground + 1
    if dz > 0.0:
        t = world.back / dz
        x, y = t * dx, world.eye + t * dy
        if t < depth and y <= _skyline_height(world, x):
            depth, mask_class = t, _backdrop_class(world, x, y)
    if world.backdrop == _ROOM:
        if dy > 0.0 and (world.top - world.eye) / dy < depth:
            depth, mask_class = (world.top - world.eye) / dy, CEILING
        if abs(dx) > 0.0 and world.half_width / abs(dx) < depth:
            depth, mask_class, which = world.half_width / abs(dx), WALL, SIDE_WALL
    t, solid = first_solid(world.solids, (0.0, world.eye, 0.0), ray, NEAR)
    if t < depth:
        return t, int(world.skins[int(world.solids[solid, 1]), 0]), solid
    return depth, mask_class, which


@compiled_entry
def measure_objects(world: World, side: int) -> tuple[Numbers, Numbers, Numbers]:
    """Return (pixels, mean column, least depth) of each object's visible part; no walls, no colour.

    The mean column is in pixels from the left edge; an object that nowhere shows has depth inf.
    """
    n = world.skins.shape[0]
    area, across, nearest = np.zeros(n), np.zeros(n), np.full(n, np.inf)
    for row in range(side):
        for column in range(side):
            ray = camera_ray(world, (column + 0.5) / side, (row + 0.5) / side)
            t, solid = first_solid(world.solids, (0.0, world.eye, 0.0), ray, NEAR)
            if solid >= 0:
                owner = int(world.solids[solid, 1])
                area[owner] += 1.0
                across[owner] += column + 0.5
                nearest[owner] = min(nearest[owner], t)
    return area, across / np.maximum(area, 1.0), nearest
