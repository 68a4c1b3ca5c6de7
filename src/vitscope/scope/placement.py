"""Random placement of activation maps: the same masses, on cells drawn at random.

A draw is a hash of (seed, feature, image id, draw, view, entry), so that it does not depend on the
batch, and thousands are drawn at once.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitscope.draws import draw_key
from vitscope.emd.sparse_maps import SparseMaps

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_64_BITS = (1 << 64) - 1

_ENTRY_BITS, _ATTEMPT_BITS = 24, 24

Keys = NDArray[np.uint64]


def placement_keys(features: NDArray[np.int64], image_ids: Sequence[str], *, seed: int) -> Keys:
    """Return one key per (feature, image id) pair, [N]."""
    of_image = {name: draw_key(seed, "null", name) & _64_BITS for name in set(image_ids)}
    image = np.asarray([of_image[name] for name in image_ids], dtype=np.uint64)
    return _mixed(image ^ _mixed(features.astype(np.uint64)))


def place_at_random(maps: SparseMaps, keys: Keys, *, draw: int, view: int) -> SparseMaps:
    """Return every map with its masses moved to distinct cells, uniformly drawn.

    Cells are drawn independently; where one repeats an earlier one of its map it is drawn again,
    until all differ. The rule only asks which cells are equal, so that no choice of distinct cells
    is likelier than another.

    Args:
        maps: N maps.
        keys: of :func:`placement_keys`, [N].
        draw: number of the draw, from 0.
        view: 0 or 1: the two views are placed independently.
    """
    n_cells = np.uint64(maps.shape[0] * maps.shape[1])
    counts = np.diff(maps.offsets)
    owner = np.repeat(np.arange(len(maps)), counts)
    entry = np.arange(len(owner)) - np.repeat(maps.offsets[:-1], counts)
    stream = _mixed(keys ^ _mixed(np.full_like(keys, 2 * draw + view + 1)))[owner]
    stream = stream + (entry.astype(np.uint64) << np.uint64(_ATTEMPT_BITS))
    assert counts.max(initial=0) < 1 << _ENTRY_BITS
    cells = (_mixed(stream) % n_cells).astype(np.int64)
    attempt = 0
    again = _repeated(owner, cells, int(n_cells))
    while again.size:
        attempt += 1
        cells[again] = (_mixed(stream[again] + np.uint64(attempt)) % n_cells).astype(np.int64)
        again = _repeated(owner, cells, int(n_cells))
    return SparseMaps(cells.astype(np.int32), maps.values, maps.offsets, maps.shape)


def _repeated(
    owner: NDArray[np.int64], cells: NDArray[np.int64], n_cells: int
) -> NDArray[np.int64]:
    """Return entries whose cell an earlier entry of the same map has."""
    place = owner * n_cells + cells
    order = np.argsort(place, kind="stable")
    return order[1:][np.diff(place[order]) == 0]


def _mixed(values: Keys) -> Keys:
    """Scramble 64 bits (the finaliser of SplitMix64; Steele, Lea and Flood, 2014)."""
    with np.errstate(over="ignore"):
        values = values + _GOLDEN
        values = (values ^ (values >> np.uint64(30))) * _FIRST
        values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))
