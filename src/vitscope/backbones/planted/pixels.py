"""What a planted backbone sees in pixels: patch words, hashes, and the view's cell.

All of it is integer arithmetic on bytes, so that identical pixels give identical answers whatever
the batch, the position or the machine.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVELS = 6
"""Quantisation levels per colour channel of a patch's mean."""

TEXTURED_VARIANCE = 150
"""Pixel variance (in squared byte levels) above which a patch counts as textured."""

N_WORDS = LEVELS**3 * 2

LUMINANCE_CELL = 48.0
WARMTH_CELL = 36.0
"""Sides of a view's cell, in byte levels of mean luminance and of mean red minus blue: wide against
what a shift of one patch changes, narrow against the spread over photographs."""

_MULTIPLIERS_SEED = 0x5EED


@dataclass(frozen=True)
class ViewPixels:
    """One batch of views as a planted backbone sees it.

    Attributes:
        words: visual word of each patch, int64 [B, P], below ``N_WORDS``.
        hashes: 64-bit hash of each patch's own bytes, uint64 [B, P].
        view_hash: 64-bit hash of the whole view, uint64 [B].
        cells: the view's cell in (luminance, warmth), int64 [B, 2].
        typicality: 0 at the border of the cell, 1 in its middle, float64 [B].
    """

    words: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    view_hash: NDArray[np.uint64]
    cells: NDArray[np.int64]
    typicality: NDArray[np.float64]


def read_pixels(images: NDArray[np.uint8], grid: int, patch: int) -> ViewPixels:
    """Read bytes [B, 3, p·n, p·n] patch by patch."""
    n_images = images.shape[0]
    patches = images.reshape(n_images, 3, grid, patch, grid, patch)
    flat = patches.transpose(0, 2, 4, 1, 3, 5).reshape(n_images, grid * grid, 3, patch * patch)
    wide = flat.astype(np.int64)
    sums = wide.sum(-1)
    hashes = _hash_bytes(flat.reshape(n_images, grid * grid, -1))
    cells, typicality = _view_cell(sums.sum(1), grid * grid * patch * patch)
    return ViewPixels(
        words=_words(sums, wide, patch * patch),
        hashes=hashes,
        view_hash=_mix(_dot(hashes, 1)),
        cells=cells,
        typicality=typicality,
    )


def uniform(hashes: NDArray[np.uint64], salt: int) -> NDArray[np.float64]:
    """Map hashes to numbers uniform in [0, 1); another ``salt`` gives an independent number."""
    salted = hashes ^ np.uint64((salt * 0x9E3779B97F4A7C15) % 2**64)
    return (_mix(salted) >> np.uint64(11)).astype(np.float64) / 2.0**53


def _words(sums: NDArray[np.int64], wide: NDArray[np.int64], n_pixels: int) -> NDArray[np.int64]:
    levels = sums * LEVELS // (256 * n_pixels)
    # n²·variance of the pixel sum over channels, in integers
    grey = wide.sum(2)
    spread = n_pixels * (grey * grey).sum(-1) - grey.sum(-1) ** 2
    textured = spread > 9 * TEXTURED_VARIANCE * n_pixels**2
    colour = (levels[..., 0] * LEVELS + levels[..., 1]) * LEVELS + levels[..., 2]
    return colour * 2 + textured


def _view_cell(
    totals: NDArray[np.int64], n_pixels: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    luminance = totals.sum(-1) / (3 * n_pixels) / LUMINANCE_CELL
    warmth = (totals[:, 0] - totals[:, 2]) / n_pixels / WARMTH_CELL
    place = np.stack([luminance, warmth], -1)
    cells = np.floor(place)
    inside = place - cells
    return cells.astype(np.int64), 2 * np.minimum(inside, 1 - inside).min(-1)


def _hash_bytes(data: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return _mix(_dot(data.astype(np.uint64), 0))


def _dot(values: NDArray[np.uint64], stream: int) -> NDArray[np.uint64]:
    random = np.random.Generator(np.random.Philox(key=_MULTIPLIERS_SEED + stream))
    factors = random.integers(0, 2**63, values.shape[-1], dtype=np.uint64) * np.uint64(2)
    with np.errstate(over="ignore"):  # wrap-around is the hash
        return (values * (factors + np.uint64(1))).sum(-1, dtype=np.uint64)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finalise as SplitMix64 does: every input bit reaches every output bit."""
    with np.errstate(over="ignore"):
        mixed = values + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))
