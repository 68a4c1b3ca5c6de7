"""Draws what stands where: place, light, camera, colours and objects, before any pixel.

Everything is one frozen record of plain numbers, a pure function of the generator's stream.
Colours are drawn without regard to place, so that a histogram of colours says little about it.
"""

import colorsys
import math
from dataclasses import dataclass

import numpy as np

from vitscope.images.scenes.compiled import Numbers
from vitscope.images.scenes.settings import SceneSettings
from vitscope.images.scenes.things import Thing, draw_things
from vitscope.images.scenes.vocabulary import BACKDROPS, DOOR, GROUNDS, TIMES, WINDOW

_FEWER_OBJECTS = 0.95
"""Chance of n + 1 objects, relative to n."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A door or window in the back wall: mask class and edges in metres."""

    mask_class: int
    left: float
    right: float
    bottom: float
    top: float


@dataclass(frozen=True, slots=True)
class Light:
    """Where light comes from (unit vector), its colour, and that of the light from all sides."""

    direction: tuple[float, float, float]
    direct: tuple[float, float, float]
    ambient: tuple[float, float, float]
    sky_gain: float


@dataclass(frozen=True, slots=True)
class Layout:
    """A scene before rendering; lengths in metres, angles in radians, colours RGB in [0, 1].

    Attributes:
        eye: the camera's height; ``pitch`` is downward, ``yaw`` to the right.
        back: distance of the backdrop; ``top`` is its height (a room's ceiling).
        half_width: of a room.
        ground_scale, ground_turn: size and direction of the ground's pattern.
        palette: rows ground, ground's second colour, wall, ceiling, low sky, high sky, door,
            window, mountain, building.
        grain: standard deviation of the camera's noise, in shares of full scale.
        pattern_seed: of every texture and silhouette.
    """

    ground: str
    backdrop: str
    time: str
    eye: float
    pitch: float
    yaw: float
    back: float
    top: float
    half_width: float
    ground_scale: float
    ground_turn: float
    palette: Numbers
    light: Light
    openings: tuple[Opening, ...]
    grain: float
    pattern_seed: int
    things: tuple[Thing, ...]


def draw_layout(rng: np.random.Generator, settings: SceneSettings) -> Layout:
    """Draw a scene; objects may still hide each other (`visible.settle` takes those out)."""
    uniform = rng.uniform
    ground, backdrop, time = (
        words[int(rng.integers(len(words)))] for words in (GROUNDS, BACKDROPS, TIMES)
    )
    indoors = backdrop == "room"
    near = indoors or backdrop == "court"
    back = uniform(6.5, 9.5) if near else uniform(26.0, 36.0)
    top = uniform(2.7, 3.6) if indoors else uniform(1.7, 2.6) if near else uniform(5.0, 10.0)
    half_width = uniform(3.0, 4.5)
    yaw = math.radians(uniform(-12, 12))
    n = _n_objects(rng, settings)
    reach = (min(back - 1.0, 8.0), half_width if indoors else math.inf)
    return Layout(
        ground=ground,
        backdrop=backdrop,
        time=time,
        eye=uniform(1.5, 2.1),
        pitch=math.radians(uniform(5, 14)),
        yaw=yaw,
        back=back,
        top=top,
        half_width=half_width,
        ground_scale=uniform(0.85, 1.3),
        ground_turn=uniform(-0.5, 0.5) + (math.pi / 2) * int(rng.integers(2)),
        palette=_palette(rng),
        light=_light(rng, time),
        openings=_openings(rng, half_width, top) if near else (),
        grain=settings.noise * uniform(0.006, 0.022),
        pattern_seed=int(rng.integers(1 << 20)),
        things=draw_things(rng, n, yaw, reach, settings.object_scale),
    )


def _n_objects(rng: np.random.Generator, settings: SceneSettings) -> int:
    counts = np.arange(settings.min_objects, settings.max_objects + 1)
    weights = _FEWER_OBJECTS ** (counts - settings.min_objects)
    return int(rng.choice(counts, p=weights / weights.sum()))


def _light(rng: np.random.Generator, time: str) -> Light:
    uniform = rng.uniform
    low = time in ("morning", "evening")
    height = math.radians(uniform(24, 38) if low else uniform(60, 80))
    sideways = 1.0 if time == "evening" else -1.0 if low else rng.choice((-1.0, 1.0))
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
    direct = exposure * (1 - share) * 1.35 * tint
    ambient = exposure * share * (1 + rng.normal(0, 0.03, 3))
    sky_gain = 0.35 if time == "night" else float(uniform(0.9, 1.05))
    return Light(direction, _triple(direct), _triple(ambient), sky_gain)


def _palette(rng: np.random.Generator) -> Numbers:
    def pale() -> list[float]:
        return _hsv(rng, (0.04, 0.36), (0.62, 0.97))

    def muted() -> list[float]:
        return _hsv(rng, (0.10, 0.50), (0.38, 0.75))

    ground, low_sky = np.array(muted()), np.array(pale())
    second = ground * rng.uniform(0.42, 0.62)
    high_sky = low_sky * rng.uniform(0.72, 1.0, 3)
    rows = [ground, second, pale(), pale(), low_sky, high_sky]
    return np.array([*rows, muted(), pale(), muted(), muted()], dtype=np.float64)


def _hsv(
    rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> list[float]:
    return list(colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value)))


def _openings(rng: np.random.Generator, half_width: float, top: float) -> tuple[Opening, ...]:
    """Draw one or two doors and windows, each in its own half of the wall."""
    found: list[Opening] = []
    halves = [(-half_width, 0.0), (0.0, half_width)]
    if rng.random() < 0.5:
        halves.reverse()
    for left, right in halves[: 1 + int(rng.integers(2))]:
        is_door = rng.random() < 0.5
        width = rng.uniform(0.9, 1.2) if is_door else rng.uniform(1.0, 1.8)
        middle = rng.uniform(left + 0.6 * width, right - 0.6 * width)
        bottom, high = (0.0, min(2.1, 0.85 * top)) if is_door else (0.35 * top, 0.8 * top)
        kind = DOOR if is_door else WINDOW
        found.append(Opening(kind, middle - width / 2, middle + width / 2, bottom, high))
    return tuple(found)


def _triple(values: Numbers) -> tuple[float, float, float]:
    r, g, b = (float(v) for v in values)
    return (r, g, b)
