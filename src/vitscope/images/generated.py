"""Photo-like pictures made up from a seed, for the demonstration and the tests.

Each is a scene: a sky with soft clouds, a textured ground, a few solid things standing on it, and
the noise of a camera. They have what a photograph has for a vision transformer: smooth regions,
texture at several scales, edges, and patches that differ from each other.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vitscope.draws import generator
from vitscope.store.atomic import atomic_path

Colour = tuple[int, int, int]
Plane = NDArray[np.float32]

PALETTES: tuple[tuple[Colour, Colour, Colour, tuple[Colour, ...]], ...] = (
    ((70, 130, 210), (200, 225, 245), (95, 125, 60), ((150, 60, 45), (225, 215, 190))),  # noon
    ((60, 50, 110), (250, 160, 90), (70, 60, 55), ((30, 25, 40), (200, 90, 60))),  # dusk
    ((175, 195, 205), (235, 235, 225), (205, 170, 115), ((120, 85, 55), (240, 225, 190))),  # sand
    ((120, 135, 150), (190, 200, 205), (40, 70, 85), ((220, 225, 230), (170, 50, 50))),  # sea
    ((20, 25, 55), (60, 70, 110), (25, 35, 35), ((235, 200, 110), (90, 100, 140))),  # night
    ((190, 205, 225), (240, 240, 245), (225, 230, 238), ((60, 75, 60), (140, 40, 40))),  # snow
)
"""Top of the sky, horizon, ground, and colours of things."""

_OCTAVES = (2, 4, 8, 16, 32)
"""Cells across the picture of each layer of texture."""

_CLOUD_STRENGTH = 70.0
_GROUND_STRENGTH = 45.0
_CAMERA_NOISE = 3.0
"""Grey levels: peak of the clouds, spread of the ground's texture, spread of the noise."""


def write_generated_images(folder: Path, n: int, *, seed: int, side: int) -> list[Path]:
    """Write ``n`` square pictures of ``side`` pixels as PNG; each depends on (seed, its index).

    Returns:
        their paths, in natural order.
    """
    paths = [folder / f"scene-{index:04d}.png" for index in range(n)]
    for index, path in enumerate(paths):
        picture = Image.fromarray(_scene(generator(seed, "scene", index), side))
        with atomic_path(path) as temporary:
            picture.save(temporary, format="PNG", compress_level=1)
    return paths


def _scene(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    palette = PALETTES[int(rng.integers(len(PALETTES)))]
    top, bottom, ground = np.array(palette[:3], dtype=np.float32)
    horizon = int(side * rng.uniform(0.3, 0.7))
    picture = np.empty((side, side, 3), dtype=np.float32)
    height = np.linspace(0, 1, horizon, dtype=np.float32)[:, None, None]
    clouds = np.clip(_texture(rng, side, fade=0.5), 0, None)[:horizon, :, None]
    picture[:horizon] = (1 - height) * top + height * bottom + _CLOUD_STRENGTH * clouds
    nearness = np.linspace(0.7, 1.1, side - horizon, dtype=np.float32)[:, None, None]
    picture[horizon:] = nearness * ground
    canvas = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    for _ in range(int(rng.integers(3, 8))):
        _draw_thing(ImageDraw.Draw(canvas), rng, side, horizon, palette[3])
    lit = np.array(canvas, dtype=np.float32)
    # over the things that stand on it too: a uniform face would be no photograph
    lit[horizon:] += _GROUND_STRENGTH * _texture(rng, side, fade=0.9)[horizon:, :, None]
    lit += rng.normal(0, _CAMERA_NOISE, lit.shape).astype(np.float32)
    return np.clip(np.rint(lit), 0, 255).astype(np.uint8)


def _texture(rng: np.random.Generator, side: int, *, fade: float) -> Plane:
    """Noise of several scales, about unit spread; ``fade`` is the weight of each finer octave."""
    total = np.zeros((side, side), dtype=np.float32)
    for octave, cells in enumerate(_OCTAVES):
        coarse = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
        fine = coarse.resize((side, side), Image.Resampling.BICUBIC)
        total += np.float32(fade**octave) * np.asarray(fine)
    return total / np.float32(np.sqrt(sum(fade ** (2 * o) for o in range(len(_OCTAVES)))))


def _draw_thing(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    side: int,
    horizon: int,
    colours: tuple[Colour, ...],
) -> None:
    """Draw a ball, a tree, a house or a tower, standing on the ground or hanging in the sky."""
    shade = rng.uniform(0.7, 1.2)
    colour = tuple(min(255, int(c * shade)) for c in colours[int(rng.integers(len(colours)))])
    dark = tuple(c // 2 for c in colour)
    size = side * rng.uniform(0.06, 0.2)
    x, foot = rng.uniform(0, side), rng.uniform(horizon, side)
    match int(rng.integers(4)):
        case 0:
            y = rng.uniform(0, side)
            draw.ellipse((x - size / 2, y - size / 2, x + size / 2, y + size / 2), fill=colour)
        case 1:
            draw.rectangle((x - size / 12, foot - size, x + size / 12, foot), fill=dark)
            draw.ellipse((x - size / 2, foot - 2 * size, x + size / 2, foot - size), fill=colour)
        case 2:
            draw.rectangle((x - size, foot - size, x + size, foot), fill=colour)
            roof = [
                (x - 1.2 * size, foot - size),
                (x, foot - 2 * size),
                (x + 1.2 * size, foot - size),
            ]
            draw.polygon(roof, fill=dark)
        case _:
            draw.rectangle((x - size / 4, foot - 3 * size, x + size / 4, foot), fill=colour)
            draw.rectangle((x, foot - 3 * size, x + size / 4, foot), fill=dark)
