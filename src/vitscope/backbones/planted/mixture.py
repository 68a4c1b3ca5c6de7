"""Which atoms a planted token mixes, with which activation: the truth behind every token.

First what is seen in pixels (patch words, hashes, the view's cell), then the codes that follow. The
pixels' part is integer arithmetic on bytes, so that identical pixels give identical answers
whatever the batch, the position or the machine.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from vitscope.backbones.planted.spec import Border, PlantedSpec
from vitscope.draws import generator

COLOUR_LEVELS = 6
"""Quantisation levels per colour channel of a patch's mean."""

TEXTURED_VARIANCE = 150
"""Pixel variance (in squared byte levels) above which a patch counts as textured."""

N_WORDS = COLOUR_LEVELS**3 * 2

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
        view_hash=_splitmix(_dot(hashes, 1)),
        cells=cells,
        typicality=typicality,
    )


def uniform(hashes: NDArray[np.uint64], salt: int) -> NDArray[np.float64]:
    """Map hashes to numbers uniform in [0, 1); another ``salt`` gives an independent number."""
    salted = hashes ^ np.uint64((salt * 0x9E3779B97F4A7C15) % 2**64)
    return (_splitmix(salted) >> np.uint64(11)).astype(np.float64) / 2.0**53


def _words(sums: NDArray[np.int64], wide: NDArray[np.int64], n_pixels: int) -> NDArray[np.int64]:
    levels = sums * COLOUR_LEVELS // (256 * n_pixels)
    # n²·variance of the pixel sum over channels, in integers
    grey = wide.sum(2)
    spread = n_pixels * (grey * grey).sum(-1) - grey.sum(-1) ** 2
    textured = spread > 9 * TEXTURED_VARIANCE * n_pixels**2
    colour = (levels[..., 0] * COLOUR_LEVELS + levels[..., 1]) * COLOUR_LEVELS + levels[..., 2]
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
    return _splitmix(_dot(data.astype(np.uint64), 0))


def _dot(values: NDArray[np.uint64], stream: int) -> NDArray[np.uint64]:
    random = np.random.Generator(np.random.Philox(key=_MULTIPLIERS_SEED + stream))
    factors = random.integers(0, 2**63, values.shape[-1], dtype=np.uint64) * np.uint64(2)
    with np.errstate(over="ignore"):  # wrap-around is the hash
        return (values * (factors + np.uint64(1))).sum(-1, dtype=np.uint64)


def _splitmix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finalise as SplitMix64 does: every input bit reaches every output bit."""
    with np.errstate(over="ignore"):
        mixed = values + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


@dataclass(frozen=True)
class PlantedMixture:
    """The true codes of a batch of views.

    Attributes:
        codes: activation of each atom on each patch, float32 [B, P, n_atoms].
        outliers: the patches that host a global atom, bool [B, P].
    """

    codes: NDArray[np.float32]
    outliers: NDArray[np.bool_]


def draw_vocabulary(spec: PlantedSpec) -> NDArray[np.int64]:
    """Return the local atoms [N_WORDS, pool] that each visual word may show."""
    return np.stack(
        [
            generator(spec.seed, "word", word).choice(spec.n_local, spec.pool, replace=False)
            for word in range(N_WORDS)
        ]
    )


def outlier_positions(spec: PlantedSpec, view_hash: int) -> NDArray[np.int64]:
    """Return the view's outlier positions [n_outliers], drawn from a hash of all its pixels."""
    draw = generator(spec.seed, "outliers", view_hash)
    return draw.choice(spec.n_positions, spec.n_outliers, replace=False)


def border_cells(border: Border, grid: int) -> NDArray[np.int64]:
    """Return the flat positions of a border atom in a p×p view."""
    rows, columns = np.divmod(np.arange(grid * grid), grid)
    last = grid - 1
    match border:
        case Border.FRAME:
            chosen = (rows == 0) | (rows == last) | (columns == 0) | (columns == last)
        case Border.CORNERS:
            chosen = ((rows == 0) & (columns == 0)) | ((rows == last) & (columns == last))
        case Border.EDGE:
            chosen = rows == 0
        case Border.INTERIOR:
            chosen = (rows == grid // 2) & (columns == grid // 2)
    return np.flatnonzero(chosen)


def mix(spec: PlantedSpec, vocabulary: NDArray[np.int64], seen: ViewPixels) -> PlantedMixture:
    """Compute the true codes of a batch of views."""
    n_views, n_positions = seen.words.shape
    codes = np.zeros((n_views, n_positions, spec.n_atoms), np.float32)
    _add_local(spec, codes, vocabulary, seen)
    outliers = np.zeros((n_views, n_positions), bool)
    for view in range(n_views):
        positions = outlier_positions(spec, int(seen.view_hash[view]))
        outliers[view, positions] = True
        _add_global(spec, codes[view], positions, seen, view)
        _add_border(spec, codes[view], seen, view)
    return PlantedMixture(codes, outliers)


def _between(
    bounds: tuple[float, float], share: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    return np.asarray(bounds[0] + (bounds[1] - bounds[0]) * share)


def _add_local(
    spec: PlantedSpec,
    codes: NDArray[np.float32],
    vocabulary: NDArray[np.int64],
    seen: ViewPixels,
) -> None:
    views, positions = np.indices(seen.words.shape)
    choices = np.asarray(list(combinations(range(spec.pool), spec.atoms_per_patch)))
    chosen = choices[(uniform(seen.hashes, salt=0) * len(choices)).astype(np.int64)]
    for slot in range(spec.atoms_per_patch):
        share = uniform(seen.hashes, salt=slot + 1)
        atoms = vocabulary[seen.words, chosen[..., slot]]
        codes[views, positions, atoms] = _between(spec.local_amplitude, share)


def _add_global(
    spec: PlantedSpec,
    codes: NDArray[np.float32],
    positions: NDArray[np.int64],
    seen: ViewPixels,
    view: int,
) -> None:
    amplitude = _between(spec.global_amplitude, float(seen.typicality[view]))
    start = 0
    for family, support in enumerate(spec.supports):
        chosen = _choose(seen, view, family, spec.n_per_support)
        atom = spec.n_local + family * spec.n_per_support + chosen
        codes[positions[start : start + support], atom] = amplitude
        start += support


def _add_border(spec: PlantedSpec, codes: NDArray[np.float32], seen: ViewPixels, view: int) -> None:
    first = spec.n_local + spec.n_global
    amplitude = _between(spec.border_amplitude, float(seen.typicality[view]))
    for index, border in enumerate(Border):
        chosen = _choose(seen, view, index, spec.n_per_border)
        codes[border_cells(border, spec.grid), first + index * spec.n_per_border + chosen] = (
            amplitude
        )


def _choose(seen: ViewPixels, view: int, family: int, n: int) -> int:
    """Pick one of a family's ``n`` atoms by the view's cell; neighbouring cells pick others."""
    luminance, warmth = (int(value) for value in seen.cells[view])
    return (luminance + 2 * warmth + family) % n
