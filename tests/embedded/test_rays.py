"""Rays against solids: closed forms, and solids defined independently by what is inside them."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vitscope.embedded.layout import (
    CONE,
    CUBOID,
    CYLINDER,
    ELLIPSOID,
    HALF_VIEW,
    PAINTS,
    Thing,
    World,
)
from vitscope.embedded.rendering import render
from vitscope.embedded.scene import plan_scene
from vitscope.embedded.tracing import FAR_M, hit, normal
from vitscope.embedded.vocabulary import MASK_CLASSES

KINDS = (ELLIPSOID, CUBOID, CYLINDER, CONE)
SIDE = 101
MIDDLE = SIDE // 2


def solid(kind, centre=(0.0, 0.0, 0.0), radii=(1.0, 1.0, 1.0), turn=0.0) -> np.ndarray:
    return np.array([kind, 0, *centre, *radii, math.cos(turn), math.sin(turn)])


def cast(s: np.ndarray, origin: np.ndarray, ray: np.ndarray) -> float:
    return hit(s, tuple(origin), tuple(ray), 1e-4)


def inside(s: np.ndarray, point: np.ndarray) -> bool:
    """Whether a point lies in the solid, from the solids' definitions alone."""
    x, y, z = point - s[2:5]
    angle = math.atan2(s[9], s[8])
    # turn the point back about the vertical
    u = (x * math.cos(angle) + z * math.sin(angle)) / s[5]
    w = (-x * math.sin(angle) + z * math.cos(angle)) / s[7]
    v = y / s[6]
    match int(s[0]):
        case 0:
            return u * u + v * v + w * w <= 1
        case 1:
            return max(abs(u), abs(v), abs(w)) <= 1
        case 2:
            return u * u + w * w <= 1 and abs(v) <= 1
        case _:
            return abs(v) <= 1 and math.hypot(u, w) <= (1 - v) / 2


def first_inside(s: np.ndarray, origin: np.ndarray, ray: np.ndarray, n: int = 6000) -> float:
    steps = np.linspace(0, 12, n)
    return next((float(t) for t in steps if inside(s, origin + t * ray)), math.inf)


unit = st.floats(-1, 1)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    radii=st.tuples(*[st.floats(0.3, 1.5)] * 3),
    turn=st.floats(0, 3),
    start=st.tuples(unit, unit, unit),
    aim=st.tuples(unit, unit, unit),
)
def test_hits_where_marching_enters(kind, radii, turn, start, aim) -> None:
    s = solid(kind, (0.2, -0.1, 0.3), radii, turn)
    away = np.array(start)
    assume(np.linalg.norm(away) > 0.2)
    origin = 4.0 * away / np.linalg.norm(away)
    ray = 0.6 * np.array(aim) - origin / 4.0
    ray /= np.linalg.norm(ray)
    found, marched = cast(s, origin, ray), first_inside(s, origin, ray)
    if math.isinf(marched):
        # marching may step over a grazed edge, never over a deep crossing
        if math.isfinite(found):
            assert not inside(s, origin + (found + 0.02) * ray)
    else:
        assert found == pytest.approx(marched, abs=12 / 6000 + 1e-6)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    radii=st.tuples(*[st.floats(0.3, 1.5)] * 3),
    turn=st.floats(0, 3),
    aim=st.tuples(unit, unit, unit),
)
def test_normals_point_out_and_lie_across_the_surface(kind, radii, turn, aim) -> None:
    s = solid(kind, (0, 0, 0), radii, turn)
    origin = np.array([2.5, 2.2, -4.0])
    ray = 0.3 * np.array(aim) - origin / np.linalg.norm(origin)
    t = cast(s, origin, ray)
    assume(math.isfinite(t))
    point = origin + t * ray
    n = np.array(normal(s, tuple(point)))
    assert np.linalg.norm(n) == pytest.approx(1, abs=1e-6)
    assert n @ ray < 1e-6, "a surface that is seen faces the eye"
    # along the surface, a thousandth away: out just above, in just below, whatever the direction
    for other in ([0.3, 0.5, 0.8], [0.9, -0.4, 0.1]):
        across = np.cross(n, other)
        across /= np.linalg.norm(across)
        for way in (across, -across):
            assume(inside(s, point - 0.05 * n + 0.05 * way))  # away from edges and the apex
            assert not inside(s, point + 1e-3 * way + 1e-4 * n)
            assert inside(s, point + 1e-3 * way - 1e-4 * n)


def bare_world(*things: Thing, pitch: float = 0.0) -> World:
    """An open plain at noon with the given things: no wall within 30 metres, level camera."""
    layouts = (plan_scene(9, i).layout for i in range(99))
    layout = next(layout for layout in layouts if layout.backdrop == "skyline")
    empty = layout.empty._replace(
        eye=1.5,
        pitch=(math.cos(pitch), math.sin(pitch)),
        yaw=(1.0, 0.0),
        back=30.0,
        grain=0.0,
        light=(0.0, 1.0, 0.0),
        direct=(0.6, 0.6, 0.6),
        ambient=(0.4, 0.4, 0.4),
        sky_gain=1.0,
    )
    return replace(layout, empty=empty, things=things).world()


def thing(shape: str, x: float, z: float, size: float, colour: str = "red") -> Thing:
    return Thing(shape, "plain", colour, "matte", x, z, size, 0.0, PAINTS[colour])


def test_ground_depth_is_eye_over_slope() -> None:
    _, mask, _, depth = render(bare_world(), SIDE)
    rows = np.arange(SIDE)
    fall = (2 * (rows + 0.5) / SIDE - 1) * HALF_VIEW
    expected = 1.5 / np.maximum(fall, 1e-9)
    ground = expected < 29.9
    assert ground.sum() > 30
    for column in (0, MIDDLE, SIDE - 1):  # depth is along the axis: equal across a level row
        np.testing.assert_allclose(depth[ground, column], expected[ground], rtol=1e-5)
    assert (mask[ground] <= 4).all()
    assert depth[0, MIDDLE] == FAR_M and MASK_CLASSES[mask[0, MIDDLE]] == "sky"


@pytest.mark.parametrize("pitch", [0.0, 0.1, 0.3])
def test_ball_depth_is_the_quadratic_s_root(pitch) -> None:
    ball = thing("ball", 0.3, 6.0, 1.0)  # radius 0.9, resting on the ground
    _, mask, _, depth = render(bare_world(ball, pitch=pitch), SIDE)
    centre = np.array([0.3, 0.9 - 1.5, 6.0])
    shown = np.argwhere(mask == MASK_CLASSES.index("ball"))
    assert len(shown) > 200
    for row, column in shown[::37]:
        x = (2 * (column + 0.5) / SIDE - 1) * HALF_VIEW
        y = (1 - 2 * (row + 0.5) / SIDE) * HALF_VIEW
        turn = np.array([[math.cos(pitch), -math.sin(pitch)], [math.sin(pitch), math.cos(pitch)]])
        ray = np.array([x, *(turn @ [y, 1.0])])
        roots = np.roots([ray @ ray, -2 * ray @ centre, centre @ centre - 0.81])
        assert depth[row, column] == pytest.approx(roots.real.min(), rel=1e-5)


def test_box_front_is_flat() -> None:
    box = thing("box", 0.0, 5.0, 1.0)  # half-extents 0.8, 0.75, 0.8
    _, mask, _, depth = render(bare_world(box), SIDE)
    front = (mask == MASK_CLASSES.index("box")) & (depth < 4.2001)
    assert front.sum() > 300
    np.testing.assert_allclose(depth[front], 4.2, rtol=1e-6)
    width = 2 * 0.8 / 4.2 / (2 * HALF_VIEW) * SIDE
    assert np.ptp(np.argwhere(front)[:, 1]) + 1 == pytest.approx(width, abs=1.01)


def test_the_nearer_object_hides_the_farther() -> None:
    near, far = thing("box", 0.0, 4.0, 1.0), thing("ball", 0.0, 8.0, 1.0, "blue")
    for order in ((near, far), (far, near)):
        _, mask, owners, depth = render(bare_world(*order), SIDE)
        row = int(0.72 * SIDE)
        assert MASK_CLASSES[mask[row, MIDDLE]] == "box"
        assert owners[row, MIDDLE] == order.index(near) + 1
        assert depth[row, MIDDLE] < 4.0


def test_a_shadow_falls_away_from_the_light() -> None:
    barrel = thing("barrel", 0.0, 5.0, 0.7)

    def floor_brightness(side: float) -> tuple[float, float]:
        world = bare_world(barrel)._replace(
            light=(side * math.cos(0.5), math.sin(0.5), 0.0), ground=3
        )
        image, mask, _, _ = render(world, SIDE)
        feet = np.argwhere(mask == MASK_CLASSES.index("barrel"))[:, 0].max() - 2
        line = image[1, feet].astype(float)
        return float(line[25:40].mean()), float(line[61:76].mean())

    left, right = floor_brightness(-1.0)
    assert right < 0.8 * left, "light from the left: the shadow lies on the right"
    left, right = floor_brightness(1.0)
    assert left < 0.8 * right
