"""Rays against the four solids that objects are made of: distance to the first hit, and normal.

A solid is a row ``[kind, owner, x, y, z, rx, ry, rz, cos, sin]`` in metres: centre, half-extents
along its own axes, and its turn about the vertical. A ray is an origin and a direction; distances
are in units of the direction's length. The camera is never inside a solid.
"""

import math

from vitscope.images.scenes.compiled import Numbers, Triple, compiled

ELLIPSOID, BLOCK, CYLINDER, CONE = range(4)
"""Kinds of solids; the vertical axis of the last two is ``y``, the cone's apex is on top."""

N_FIELDS = 10
_GRAZING = 1e-9
"""A direction component below this is parallel to a face."""


@compiled
def _ellipsoid(
    ex: float, ey: float, ez: float, fx: float, fy: float, fz: float, near: float
) -> float:  # unit sphere after scaling
    a = fx * fx + fy * fy + fz * fz
    b = ex * fx + ey * fy + ez * fz
    root = b * b - a * (ex * ex + ey * ey + ez * ez - 1.0)
    if root < 0.0:
        return math.inf
    t = (-b - math.sqrt(root)) / a
    return t if t > near else math.inf


@compiled
def _block(ex: float, ey: float, ez: float, fx: float, fy: float, fz: float, near: float) -> float:
    enter, leave = -math.inf, math.inf
    for e, f in ((ex, fx), (ey, fy), (ez, fz)):
        if abs(f) < _GRAZING:
            if abs(e) > 1.0:
                return math.inf
            continue
        low, high = (-1.0 - e) / f, (1.0 - e) / f
        enter, leave = max(enter, min(low, high)), min(leave, max(low, high))
    return enter if near < enter <= leave else math.inf


@compiled
def _cylinder(
    ex: float, ey: float, ez: float, fx: float, fy: float, fz: float, near: float
) -> float:
    best = math.inf
    a = fx * fx + fz * fz
    b = ex * fx + ez * fz
    root = b * b - a * (ex * ex + ez * ez - 1.0)
    if root < 0.0:
        return math.inf
    if a > _GRAZING:
        t = (-b - math.sqrt(root)) / a
        if t > near and abs(ey + t * fy) <= 1.0:
            return t
    if abs(fy) > _GRAZING:
        t = (math.copysign(1.0, -fy) - ey) / fy
        x, z = ex + t * fx, ez + t * fz
        if t > near and x * x + z * z <= 1.0:
            best = t
    return best


@compiled
def _cone(ex: float, ey: float, ez: float, fx: float, fy: float, fz: float, near: float) -> float:
    # x² + z² = ((1 - y) / 2)²: radius 1 at y = -1, apex at y = 1
    best = math.inf
    h, g = 0.5 * (1.0 - ey), -0.5 * fy
    a = fx * fx + fz * fz - g * g
    b = ex * fx + ez * fz - h * g
    c = ex * ex + ez * ez - h * h
    root = b * b - a * c
    if root >= 0.0 and abs(a) > _GRAZING:
        width = math.sqrt(root)
        for t in ((-b - width) / a, (-b + width) / a):
            if near < t < best and abs(ey + t * fy) <= 1.0:
                best = t
    if abs(fy) > _GRAZING:
        t = (-1.0 - ey) / fy
        x, z = ex + t * fx, ez + t * fz
        if near < t < best and x * x + z * z <= 1.0:
            best = t
    return best


@compiled
def hit(
    s: Numbers, ox: float, oy: float, oz: float, dx: float, dy: float, dz: float, near: float
) -> float:
    """Return the distance beyond ``near`` at which a ray enters the solid; inf if it misses."""
    px, py, pz = ox - s[2], oy - s[3], oz - s[4]
    cos, sin = s[8], s[9]
    ex, ez = (cos * px + sin * pz) / s[5], (cos * pz - sin * px) / s[7]
    fx, fz = (cos * dx + sin * dz) / s[5], (cos * dz - sin * dx) / s[7]
    ey, fy = py / s[6], dy / s[6]
    kind = int(s[0])
    if kind == ELLIPSOID:
        return _ellipsoid(ex, ey, ez, fx, fy, fz, near)
    if kind == BLOCK:
        return _block(ex, ey, ez, fx, fy, fz, near)
    if kind == CYLINDER:
        return _cylinder(ex, ey, ez, fx, fy, fz, near)
    return _cone(ex, ey, ez, fx, fy, fz, near)


@compiled
def own_coordinates(s: Numbers, x: float, y: float, z: float) -> Triple:
    """Return a point in the solid's own axes, where the solid spans -1 to 1."""
    px, pz = x - s[2], z - s[4]
    return (
        (s[8] * px + s[9] * pz) / s[5],
        (y - s[3]) / s[6],
        (s[8] * pz - s[9] * px) / s[7],
    )


@compiled
def normal(s: Numbers, x: float, y: float, z: float) -> Triple:
    """Return the outward unit normal of the solid ``s`` at a point of its surface."""
    u, v, w = own_coordinates(s, x, y, z)
    kind = int(s[0])
    nu, nv, nw = u, v, w
    if kind == BLOCK:
        au, av, aw = abs(u), abs(v), abs(w)
        nu = math.copysign(1.0, u) if au >= av and au >= aw else 0.0
        nv = math.copysign(1.0, v) if av > au and av >= aw else 0.0
        nw = math.copysign(1.0, w) if aw > au and aw > av else 0.0
    elif kind == CYLINDER:
        on_cap = abs(v) > u * u + w * w
        nu, nv, nw = (0.0, math.copysign(1.0, v), 0.0) if on_cap else (u, 0.0, w)
    elif kind == CONE:
        nu, nv, nw = (u, 0.25 * (1.0 - v), w) if v > -1.0 + 1e-6 else (0.0, -1.0, 0.0)
    nu, nv, nw = nu / s[5], nv / s[6], nw / s[7]
    length = math.sqrt(nu * nu + nv * nv + nw * nw) + 1e-12
    nx, nz = s[8] * nu - s[9] * nw, s[9] * nu + s[8] * nw
    return nx / length, nv / length, nz / length
