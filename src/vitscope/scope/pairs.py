"""Activation maps of a feature in two shifted views, and the distance between them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from vitscope.emd.transport import emd
from vitscope.sae.model import SparseAutoencoder
from vitscope.scope.pair_maps import PairMaps, take_maps
from vitscope.scope.placement import place_at_random, placement_keys
from vitscope.scope.views import Overlap


@dataclass(frozen=True)
class PairScores:
    """One row per scored (feature, exemplar image) pair; all arrays [N].

    Attributes:
        feature: index in the dictionary.
        rank: 0 for the feature's strongest image.
        image: index of the image in its set.
        emd: distance in patches; NaN unless both maps have mass.
        null: expected distance if both maps were placed at random; NaN like ``emd``.
        cross: distance of this pair's view 1 from view 2 of the feature's next exemplar pair (the
            last one's next is the first): what other content gives; NaN unless ``emd`` is there for
            both pairs, and they differ.
        cells_first: active overlap cells in view 1.
        cells_second: active overlap cells in view 2.
    """

    feature: NDArray[np.int64]
    rank: NDArray[np.int64]
    image: NDArray[np.int64]
    emd: NDArray[np.float64]
    null: NDArray[np.float64]
    cross: NDArray[np.float64]
    cells_first: NDArray[np.int64]
    cells_second: NDArray[np.int64]

    @classmethod
    def empty(cls) -> Self:
        """Return no pair at all."""
        whole, real = np.zeros(0, np.int64), np.zeros(0)
        return cls(whole, whole, whole, real, real, real, whole, whole)

    @classmethod
    def concatenated(cls, chunks: Sequence[Self]) -> Self:
        """Concatenate chunks, of which there is at least one."""
        names = [f.name for f in fields(cls)]
        return cls(**{name: np.concatenate([getattr(c, name) for c in chunks]) for name in names})

    def take(self, rows: NDArray[np.int64]) -> "PairScores":
        """Return some of the rows, in the order asked for."""
        return PairScores(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Pairs with mass in both views."""
        return (self.cells_first > 0) & (self.cells_second > 0)

    @property
    def missed(self) -> NDArray[np.bool_]:
        """Pairs with mass in exactly one view: the feature left the shared content."""
        return (self.cells_first > 0) != (self.cells_second > 0)


def feature_maps(
    sae: SparseAutoencoder,
    tokens: Float[Tensor, "2 P d"],
    features: Int64[Tensor, "F"],
    overlap: Overlap,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the maps [F, q, q] of ``features`` on the overlap, as view 1 and view 2 see it."""
    maps: list[NDArray[np.float64]] = []
    for view, positions in enumerate((overlap.first, overlap.second)):
        codes = sae.encode(tokens[view, torch.from_numpy(positions).to(tokens.device)], features)
        # a signed top-k has negative codes, which are no presence of the feature
        flat = codes.clamp_min(0).T.double().cpu().numpy()
        maps.append(flat.reshape(len(features), overlap.side, overlap.side))
    return maps[0], maps[1]


def score_maps(
    maps: PairMaps,
    features: NDArray[np.int64],
    image_ids: Sequence[str],
    *,
    null_draws: int,
    seed: int,
    workers: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each pair's EMD [N] and its relocation null [N], in patches; NaN where a map is empty.

    Args:
        maps: of N pairs.
        features: the feature of each pair.
        image_ids: its exemplar image; on the two alone, and the seed, the null's draws depend.
        null_draws: random placements per pair; 0 gives a null of NaN.
        seed: seed of the draws.
        workers: threads.
    """
    distances = np.asarray(emd(maps.first, maps.second, workers=workers))
    if null_draws == 0:
        return distances, np.full(len(maps), np.nan)
    keys = placement_keys(features, image_ids, seed=seed)
    total = np.zeros(len(maps))
    for draw in range(null_draws):
        placed = [
            place_at_random(one, keys, draw=draw, view=view)
            for view, one in enumerate((maps.first, maps.second))
        ]
        total += np.asarray(emd(*placed, workers=workers))
    return distances, total / null_draws


def cross_image_distances(
    pairs: PairScores, maps: PairMaps, *, workers: int = 1
) -> NDArray[np.float64]:
    """Return ``cross`` of every pair [N]; pairs and maps are ordered by (feature, rank)."""
    found = np.full(len(maps), np.nan)
    kept = np.flatnonzero(pairs.kept)
    if kept.size == 0:
        return found
    feature = pairs.feature[kept]
    starts = np.flatnonzero(np.diff(feature, prepend=-1))
    following = np.arange(1, kept.size + 1)
    following[np.append(starts[1:], kept.size) - 1] = starts  # the last one's next is the first
    differ = following != np.arange(kept.size)
    one, other = kept[differ], kept[following[differ]]
    first, second = take_maps(maps.first, one), take_maps(maps.second, other)
    found[one] = np.asarray(emd(first, second, workers=workers))
    return found
