"""Patterns as pure functions of a point: noise, boards, tiles, grass, sand, stripes and spots.

Each returns a share in [0, 1] of a surface's second colour. ``blur`` is the footprint of a pixel
in metres: a pattern finer than it fades to its mean, as in a photograph, instead of flickering.
"""

import math

from vitscope.compiled import compiled

_MASK = 0x7FFFFFFF
_SCALE = 1.0 / 0x80000000

BAND = 0.3
SPOT = 0.3
SPOT_RADIUS_2 = 0.11
"""Metres from one stripe, or dot, to the next; squared radius of a dot in these cells."""


@compiled
def lattice(i: int, j: int, seed: int) -> float:
    """Return a uniform draw in [0, 1) of the integer cell (i, j)."""
    h = (i * 374761393 + j * 668265263 + seed * 1442695041) & _MASK
    h = ((h ^ (h >> 13)) * 1274126177) & _MASK
    h = ((h ^ (h >> 15)) * 668265263) & _MASK
    return (h ^ (h >> 16)) * _SCALE


@compiled
def value_noise(x: float, y: float, seed: int) -> float:
    """Return smooth noise in [0, 1) whose cells have side 1."""
    i, j = math.floor(x), math.floor(y)
    u, v = x - i, y - j
    u, v = u * u * (3.0 - 2.0 * u), v * v * (3.0 - 2.0 * v)
    i, j = int(i), int(j)
    low = lattice(i, j, seed) * (1.0 - u) + lattice(i + 1, j, seed) * u
    high = lattice(i, j + 1, seed) * (1.0 - u) + lattice(i + 1, j + 1, seed) * u
    return low * (1.0 - v) + high * v


@compiled
def faded(share: float, period: float, blur: float) -> float:
    """Return ``share`` pulled towards one half as the period falls below two footprints."""
    ratio = 2.0 * blur / period
    return 0.5 + (share - 0.5) / (1.0 + ratio * ratio * ratio)


@compiled
def ground_share(kind: int, x: float, z: float, scale: float, seed: int, blur: float) -> float:
    """Return the pattern of ground ``kind`` (index into GROUNDS) at a point in metres."""
    if kind == 0:  # boards: each its own shade, dark gaps between
        board = 0.42 * scale
        row = math.floor(x / board)
        inside = x / board - row
        shade = 0.55 * lattice(int(row), math.floor(z / 3.1 + 0.37 * row), seed)
        return faded(1.0 if inside < 0.16 else shade, board, 0.6 * blur)
    if kind == 1:  # tiles: a checkerboard
        tile = 0.75 * scale
        parity = (math.floor(x / tile) + math.floor(z / tile)) & 1
        return faded(0.08 + 0.84 * parity, tile, 0.7 * blur)
    if kind == 2:  # grass: fine, strong, without direction
        fine = value_noise(x / (0.11 * scale), z / (0.14 * scale), seed)
        tuft = value_noise(x / (0.45 * scale), z / (0.45 * scale), seed + 1)
        return faded(min(max(1.9 * fine - 0.45, 0.0), 1.0), 0.45 * scale, blur) * 0.75 + 0.25 * tuft
    # sand: long soft ripples
    bend = 2.2 * value_noise(x / (1.6 * scale), z / (1.6 * scale), seed)
    wave = 0.5 + 0.5 * math.sin(4.0 * z / scale + 2.0 * bend + 0.8 * x / scale)
    return faded(0.2 + 0.6 * wave, 1.5 * scale, 0.5 * blur)


@compiled
def object_share(texture: int, height: float, a: float, b: float, blur: float) -> float:
    """Return the pattern of an object (index into TEXTURES), in metres along its surface."""
    if texture == 1:  # level bands
        band = height / BAND
        return faded(1.0 if band - math.floor(band) < 0.5 else 0.0, BAND, 0.5 * blur)
    if texture == 2:  # round dots, every other row shifted
        row = math.floor(b / SPOT)
        u = a / SPOT + 0.5 * (int(row) & 1)
        u, v = u - math.floor(u) - 0.5, b / SPOT - row - 0.5
        return faded(1.0 if u * u + v * v < SPOT_RADIUS_2 else 0.0, SPOT, 0.5 * blur)
    return 0.0
