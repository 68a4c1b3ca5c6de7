"""Which atoms a planted token mixes, with which activation: the truth behind every token."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from vitscope.backbones.planted.pixels import N_WORDS, ViewPixels, uniform
from vitscope.backbones.planted.spec import Border, PlantedSpec
from vitscope.draws import generator


@dataclass(frozen=True)
class Mixture:
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


def mix(spec: PlantedSpec, vocabulary: NDArray[np.int64], seen: ViewPixels) -> Mixture:
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
    return Mixture(codes, outliers)


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
