"""Activation maps of a feature in two shifted views, and the distance between them."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from vitscope.draws import generator
from vitscope.sae.model import SparseAutoencoder
from vitscope.scope.transport import emd
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
        cells_first: active overlap cells in view 1.
        cells_second: active overlap cells in view 2.
    """

    feature: NDArray[np.int64]
    rank: NDArray[np.int64]
    image: NDArray[np.int64]
    emd: NDArray[np.float64]
    null: NDArray[np.float64]
    cells_first: NDArray[np.int64]
    cells_second: NDArray[np.int64]

    @classmethod
    def empty(cls) -> Self:
        """Return no pair at all."""
        whole, real = np.zeros(0, np.int64), np.zeros(0)
        return cls(whole, whole, whole, real, real, whole, whole)

    @classmethod
    def joined(cls, chunks: list[Self]) -> Self:
        """Concatenate chunks and order rows by (feature, rank)."""
        whole = {f.name: np.concatenate([getattr(c, f.name) for c in chunks]) for f in fields(cls)}
        order = np.lexsort((whole["rank"], whole["feature"]))
        return cls(**{name: column[order] for name, column in whole.items()})

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
        flat = codes.T.double().cpu().numpy()
        maps.append(flat.reshape(len(features), overlap.side, overlap.side))
    return maps[0], maps[1]


def score_maps(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    *,
    keys: list[tuple[int, str]],
    null_draws: int,
    seed: int,
    workers: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each pair's EMD [N] and its relocation null [N], in patches.

    Args:
        first: maps of view 1, [N, q, q].
        second: maps of view 2, [N, q, q].
        keys: (feature, image id) of each pair: the null's draws depend on them alone.
        null_draws: random placements per pair; 0 gives a null of NaN.
        seed: seed of the draws.
        workers: threads.
    """
    distances = np.asarray(emd(first, second, workers=workers))
    if null_draws == 0:
        return distances, np.full(len(first), np.nan)
    placed_first, placed_second = np.empty_like(first), np.empty_like(second)
    total = np.zeros(len(first))
    for draw in range(null_draws):
        for row, (feature, image_id) in enumerate(keys):
            random = generator(seed, "null", draw, feature, image_id)
            placed_first[row] = random.permutation(first[row].ravel()).reshape(first[row].shape)
            placed_second[row] = random.permutation(second[row].ravel()).reshape(first[row].shape)
        total += np.asarray(emd(placed_first, placed_second, workers=workers))
    return distances, total / null_draws
