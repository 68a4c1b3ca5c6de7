"""Draws what stands where: place, light, camera, colours and objects, before any pixel.

A layout is a pure function of the generator's stream. Colours are drawn without regard to place, so
that a histogram of colours says little about it.
"""

import colorsys
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vitscope.embedded.vocabulary import (
    BACKDROPS,
    COLOURS,
    DOOR,
    FIRST_SHAPE,
    GROUNDS,
    MATERIALS,
    MAX_OBJECTS,
    MIN_OBJECTS,
    SHAPES,
    TEXTURES,
    TIMES,
    WINDOW,
)
from vitscope.settings import Settings

Numbers = NDArray[np.float64]
Triple = tuple[float, float, float]
"""A point, a direction or an RGB colour."""

HALF_VIEW = math.tan(math.radians(31))
"""Tangent of half the camera's field of view, across and down."""

ELLIPSOID, CUBOID, CYLINDER, CONE = range(4)
"""Kinds of solids; the vertical axis of the last two is ``y``, the cone's apex is on top."""

PAINTS = {
    "red": (0.78, 0.14, 0.12),
    "yellow": (0.90, 0.74, 0.12),
    "green": (0.16, 0.56, 0.22),
    "blue": (0.15, 0.32, 0.80),
    "white": (0.90, 0.90, 0.88),
    "black": (0.11, 0.11, 0.12),
}
_PAINT_JITTER = 0.05

_CANDIDATES = 6
"""Spots tried for each object before the scene goes without it."""

_ELBOW_ROOM = 0.9
"""Least distance of two objects on the ground, in sums of their sizes."""

_FEWER_OBJECTS = 0.95
"""Chance of n + 1 objects, relative to n."""


class SceneSettings(Settings):
    """How full, how large and how noisy scenes are."""

    max_objects: int = Field(default=MAX_OBJECTS, ge=MIN_OBJECTS, le=MAX_OBJECTS)
    """Most objects; hidden ones are taken out, so crowded scenes end with fewer."""

    object_scale: float = Field(default=1.0, gt=0, le=1.6)
    """Size of every object, relative to the set's own sizes."""

    noise: float = Field(default=1.0, ge=0)
    """Strength of the camera's noise, relative to the set's own."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One object: what it is, and where it stands.

    Attributes:
        shape, texture, colour, material: words of the vocabulary.
        x, z: its foot in metres, right of and in front of the camera's own foot.
        size: half its typical extent in metres; ``turn`` is its yaw in radians.
        paint: RGB in [0, 1], the colour with its jitter.
    """

    shape: str
    texture: str
    colour: str
    material: str
    x: float
    z: float
    size: float
    turn: float
    paint: Triple

    def solids(self, owner: int) -> list[list[float]]:
        """Return its one or two rows of ``World.solids``; ``owner`` is its own index."""
        s, turn = self.size, (math.cos(self.turn), math.sin(self.turn))

        def row(kind: int, y: float, rx: float, ry: float, rz: float) -> list[float]:
            return [kind, owner, self.x, y, self.z, rx, ry, rz, *turn]

        match self.shape:
            case "ball":
                return [row(ELLIPSOID, 0.9 * s, 0.9 * s, 0.9 * s, 0.9 * s)]
            case "box":
                return [row(CUBOID, 0.75 * s, 0.8 * s, 0.75 * s, 0.8 * s)]
            case "barrel":
                return [row(CYLINDER, s, 0.6 * s, s, 0.6 * s)]
            case "cone":
                return [row(CONE, 1.1 * s, 0.9 * s, 1.1 * s, 0.9 * s)]
            case "table":
                top = row(CUBOID, 1.3 * s, 1.2 * s, 0.17 * s, 0.8 * s)
                return [top, row(CYLINDER, 0.57 * s, 0.17 * s, 0.57 * s, 0.17 * s)]
            case _:
                bulb = row(ELLIPSOID, 2.0 * s, 0.5 * s, 0.5 * s, 0.5 * s)
                return [bulb, row(CYLINDER, 0.8 * s, 0.11 * s, 0.8 * s, 0.11 * s)]

    def skin(self) -> list[float]:
        """Return its row of ``World.skins``."""
        kinds = (TEXTURES.index(self.texture), MATERIALS.index(self.material))
        return [FIRST_SHAPE + SHAPES.index(self.shape), *kinds, *self.paint]


class World(NamedTuple):
    """What every ray needs, as numbers: metres, RGB in [0, 1], angles as their cosine and sine.

    Attributes:
        ground, backdrop, time: indices into the vocabulary.
        eye: the camera's height; ``pitch`` is downward, ``yaw`` to the right.
        back: distance of the backdrop; ``top`` is its height (a room's ceiling).
        half_width: of a room.
        ground_scale, ground_turn: size and direction of the ground's pattern.
        palette: rows ground, ground's second colour, wall, ceiling, low sky, high sky, door,
            window, mountain, building.
        light: unit vector to where light comes from; ``direct`` is its colour, ``ambient`` that of
            the light from all sides.
        openings: doors and windows in the back wall, rows [mask class, left, right, bottom, top].
        grain: standard deviation of the camera's noise, in shares of full scale.
        seed: of every texture and silhouette.
        solids: rows [kind, owner, x, y, z, rx, ry, rz, cos, sin]: centre, half-extents along the
            solid's own axes, and its turn about the vertical.
        skins: one row an object [mask class, texture, material, r, g, b].
    """

    ground: int
    backdrop: int
    time: int
    eye: float
    pitch: tuple[float, float]
    yaw: tuple[float, float]
    back: float
    top: float
    half_width: float
    ground_scale: float
    ground_turn: tuple[float, float]
    palette: Numbers
    light: Triple
    direct: Triple
    ambient: Triple
    sky_gain: float
    openings: Numbers
    grain: float
    seed: int
    solids: Numbers
    skins: Numbers


@dataclass(frozen=True, slots=True)
class SceneLayout:
    """A scene before rendering.

    Attributes:
        ground, backdrop, time: words of the vocabulary.
        yaw: of the camera, in radians to the right.
        reach: metres ahead and to either side, within which objects stand.
        empty: the world without any object.
        things: the objects.
    """

    ground: str
    backdrop: str
    time: str
    yaw: float
    reach: tuple[float, float]
    empty: World
    things: tuple[Thing, ...]

    def world(self) -> World:
        """Return the world with the objects in it."""
        solids = [row for i, thing in enumerate(self.things) for row in thing.solids(i)]
        skins = _table([thing.skin() for thing in self.things], 6)
        return self.empty._replace(solids=_table(solids, 10), skins=skins)


def draw_kinds(rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw which ground, backdrop and time: the first that is drawn of a scene."""
    ground, backdrop, time = (
        int(rng.integers(len(words))) for words in (GROUNDS, BACKDROPS, TIMES)
    )
    return ground, backdrop, time


def draw_layout(rng: np.random.Generator, settings: SceneSettings) -> SceneLayout:
    """Draw a scene; objects may still hide each other (`labels.settle` takes those out)."""
    uniform = rng.uniform
    kinds = draw_kinds(rng)
    ground, backdrop, time = GROUNDS[kinds[0]], BACKDROPS[kinds[1]], TIMES[kinds[2]]
    indoors = backdrop == "room"
    near = indoors or backdrop == "court"
    back = uniform(6.5, 9.5) if near else uniform(26.0, 36.0)
    top = uniform(2.7, 3.6) if indoors else uniform(1.7, 2.6) if near else uniform(5.0, 10.0)
    half_width = uniform(3.0, 4.5)
    yaw = math.radians(uniform(-12, 12))
    n = _n_objects(rng, settings)
    # what is drawn when is part of the set: in another order these would be other scenes
    empty = World(
        *kinds,
        eye=uniform(1.5, 2.1),
        pitch=_turn(math.radians(uniform(5, 14))),
        yaw=_turn(yaw),
        back=back,
        top=top,
        half_width=half_width,
        ground_scale=uniform(0.85, 1.3),
        ground_turn=_turn(uniform(-0.5, 0.5) + (math.pi / 2) * int(rng.integers(2))),
        palette=_palette(rng),
        **_light(rng, time),
        openings=_openings(rng, half_width, top) if near else _table([], 5),
        grain=settings.noise * uniform(0.006, 0.022),
        seed=int(rng.integers(1 << 20)),
        solids=_table([], 10),
        skins=_table([], 6),
    )
    reach = (min(back - 1.0, 8.0), half_width if indoors else math.inf)
    things = draw_things(rng, n, yaw, reach, settings.object_scale)
    return SceneLayout(ground, backdrop, time, yaw, reach, empty, things)


def draw_things(
    rng: np.random.Generator, n: int, yaw: float, reach: tuple[float, float], scale: float
) -> tuple[Thing, ...]:
    """Place up to ``n`` objects apart from each other, within the view and the walls."""
    placed: list[Thing] = []
    deepest, half_width = reach
    for along, across, larger in rng.random((n * _CANDIDATES, 3)):
        size = scale * (0.5 + 0.3 * larger)
        depth = 3.0 + (deepest - 3.0) * along
        side = (2 * across - 1) * 0.88 * HALF_VIEW * depth
        x = side * math.cos(yaw) + depth * math.sin(yaw)
        z = depth * math.cos(yaw) - side * math.sin(yaw)
        clear = abs(x) < half_width - 1.2 * size and all(
            math.hypot(x - p.x, z - p.z) > _ELBOW_ROOM * (size + p.size) for p in placed
        )
        if clear:
            placed.append(_thing(rng, float(x), float(z), float(size)))
        if len(placed) == n:
            break
    return tuple(placed)


def _thing(rng: np.random.Generator, x: float, z: float, size: float) -> Thing:
    kinds = (SHAPES, TEXTURES, COLOURS, MATERIALS)
    shape, texture, colour, material = (words[int(rng.integers(len(words)))] for words in kinds)
    paint = np.clip(np.array(PAINTS[colour]) + rng.normal(0, _PAINT_JITTER, 3), 0.03, 1)
    turn = rng.uniform(0, math.pi)
    return Thing(shape, texture, colour, material, x, z, size, turn, _triple(paint))


def _n_objects(rng: np.random.Generator, settings: SceneSettings) -> int:
    counts = np.arange(MIN_OBJECTS, settings.max_objects + 1)
    weights = _FEWER_OBJECTS ** (counts - MIN_OBJECTS)
    return int(rng.choice(counts, p=weights / weights.sum()))


def _light(rng: np.random.Generator, time: str) -> dict[str, Any]:
    uniform = rng.uniform
    low = time in ("morning", "evening")
    height = math.radians(uniform(24, 38) if low else uniform(60, 80))
    sideways = 1.0 if time == "evening" else -1.0 if low else float(rng.choice((-1.0, 1.0)))
    # from a little behind the camera to a little beyond the objects
    forward = math.radians(uniform(-45, 25) if low else uniform(-80, 80))
    direction = (
        sideways * math.cos(height) * math.cos(forward),
        math.sin(height),
        math.cos(height) * math.sin(forward),
    )
    exposure = uniform(0.85, 1.15) * (0.42 if time == "night" else 1.0)
    tint = 1 + rng.normal(0, 0.05, 3)
    share = uniform(0.35, 0.5)
    return {
        "light": direction,
        "direct": _triple(exposure * (1 - share) * 1.35 * tint),
        "ambient": _triple(exposure * share * (1 + rng.normal(0, 0.03, 3))),
        "sky_gain": 0.35 if time == "night" else uniform(0.9, 1.05),
    }


def _palette(rng: np.random.Generator) -> Numbers:
    def drawn(saturation: tuple[float, float], value: tuple[float, float]) -> Numbers:
        hue, *rest = rng.random(), rng.uniform(*saturation), rng.uniform(*value)
        return np.array(colorsys.hsv_to_rgb(hue, *rest))

    def pale() -> Numbers:
        return drawn((0.04, 0.36), (0.62, 0.97))

    def muted() -> Numbers:
        return drawn((0.10, 0.50), (0.38, 0.75))

    ground, low_sky = muted(), pale()
    second = ground * rng.uniform(0.42, 0.62)
    high_sky = low_sky * rng.uniform(0.72, 1.0, 3)
    rows = [ground, second, pale(), pale(), low_sky, high_sky]
    return np.array([*rows, muted(), pale(), muted(), muted()])


def _openings(rng: np.random.Generator, half_width: float, top: float) -> Numbers:
    """Draw one or two doors and windows, each in its own half of the wall."""
    found: list[list[float]] = []
    halves = [(-half_width, 0.0), (0.0, half_width)]
    if rng.random() < 0.5:
        halves.reverse()
    for left, right in halves[: 1 + int(rng.integers(2))]:
        is_door = rng.random() < 0.5
        width = rng.uniform(0.9, 1.2) if is_door else rng.uniform(1.0, 1.8)
        middle = rng.uniform(left + 0.6 * width, right - 0.6 * width)
        bottom, high = (0.0, min(2.1, 0.85 * top)) if is_door else (0.35 * top, 0.8 * top)
        kind = DOOR if is_door else WINDOW
        found.append([kind, middle - width / 2, middle + width / 2, bottom, high])
    return _table(found, 5)


def _table(rows: list[list[float]], n_columns: int) -> Numbers:
    return np.array(rows, dtype=np.float64).reshape(len(rows), n_columns)


def _turn(angle: float) -> tuple[float, float]:
    return (math.cos(angle), math.sin(angle))


def _triple(values: Numbers) -> Triple:
    r, g, b = (float(v) for v in values)
    return (r, g, b)
