"""Objects: what each is and where it stands, drawn apart from each other and in view."""

import math
from dataclasses import dataclass

import numpy as np

from vitscope.images.scenes.geometry import BLOCK, CONE, CYLINDER, ELLIPSOID
from vitscope.images.scenes.optics import HALF_VIEW
from vitscope.images.scenes.vocabulary import COLOURS, MATERIALS, SHAPES, TEXTURES

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
    paint: tuple[float, float, float]

    def solids(self, owner: int) -> list[list[float]]:
        """Return the rows that `geometry` traces, one or two a thing."""
        s, turn = self.size, (math.cos(self.turn), math.sin(self.turn))

        def row(kind: int, y: float, rx: float, ry: float, rz: float) -> list[float]:
            return [kind, owner, self.x, y, self.z, rx, ry, rz, *turn]

        match self.shape:
            case "ball":
                return [row(ELLIPSOID, 0.9 * s, 0.9 * s, 0.9 * s, 0.9 * s)]
            case "box":
                return [row(BLOCK, 0.75 * s, 0.8 * s, 0.75 * s, 0.8 * s)]
            case "barrel":
                return [row(CYLINDER, s, 0.6 * s, s, 0.6 * s)]
            case "cone":
                return [row(CONE, 1.1 * s, 0.9 * s, 1.1 * s, 0.9 * s)]
            case "table":
                top = row(BLOCK, 1.3 * s, 1.2 * s, 0.17 * s, 0.8 * s)
                return [top, row(CYLINDER, 0.57 * s, 0.17 * s, 0.57 * s, 0.17 * s)]
            case _:
                bulb = row(ELLIPSOID, 2.0 * s, 0.5 * s, 0.5 * s, 0.5 * s)
                return [bulb, row(CYLINDER, 0.8 * s, 0.11 * s, 0.8 * s, 0.11 * s)]


def draw_things(
    rng: np.random.Generator, n: int, yaw: float, reach: tuple[float, float], scale: float
) -> tuple[Thing, ...]:
    """Place up to ``n`` objects apart from each other, within the view and the walls."""
    placed: list[Thing] = []
    deepest, half_width = reach
    draws = rng.random((n * _CANDIDATES, 3))
    for along, across, larger in draws:
        size = scale * (0.5 + 0.3 * larger)
        depth = 3.0 + (deepest - 3.0) * along
        side = (2 * across - 1) * 0.88 * HALF_VIEW * depth
        x = side * math.cos(yaw) + depth * math.sin(yaw)
        z = depth * math.cos(yaw) - side * math.sin(yaw)
        clear = abs(x) < half_width - 1.2 * size and all(
            math.hypot(x - p.x, z - p.z) > _ELBOW_ROOM * (size + p.size) for p in placed
        )
        if clear:
            placed.append(_thing(rng, x, z, size))
        if len(placed) == n:
            break
    return tuple(placed)


def _thing(rng: np.random.Generator, x: float, z: float, size: float) -> Thing:
    kinds = (SHAPES, TEXTURES, COLOURS, MATERIALS)
    shape, texture, colour, material = (words[int(rng.integers(len(words)))] for words in kinds)
    r, g, b = np.clip(np.array(PAINTS[colour]) + rng.normal(0, _PAINT_JITTER, 3), 0.03, 1)
    turn = rng.uniform(0, math.pi)
    paint = (float(r), float(g), float(b))
    return Thing(shape, texture, colour, material, float(x), float(z), float(size), turn, paint)
