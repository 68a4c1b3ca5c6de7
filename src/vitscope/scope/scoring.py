"""From exemplars to pair scores: only the images that some feature wants are encoded again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitscope.draws import generator
from vitscope.sae.model import SparseAutoencoder
from vitscope.scope.pairs import PairScores, feature_maps, score_maps
from vitscope.scope.views import Overlap


@dataclass(frozen=True)
class Wanted:
    """What is asked of one exemplar image.

    Attributes:
        features: features that have it among their exemplars, ascending, [F].
        ranks: its rank among each feature's exemplars, [F].
    """

    features: NDArray[np.int64]
    ranks: NDArray[np.int64]


def sampled_features(feature: NDArray[np.int64], n: int | None, seed: int) -> NDArray[np.int64]:
    """Return ``n`` of the distinct features drawn at random, ascending; all of them for None."""
    every = np.unique(feature)
    if n is None or n >= every.size:
        return every
    return np.sort(generator(seed, "sample-features").choice(every, n, replace=False))


def wanted_by_image(
    feature: NDArray[np.int64], rank: NDArray[np.int64], image: NDArray[np.int64]
) -> dict[int, Wanted]:
    """Group exemplar rows by image; images ascending."""
    if feature.size == 0:  # np.split would still return one group
        return {}
    order = np.lexsort((feature, image))
    images, starts = np.unique(image[order], return_index=True)
    groups = np.split(order, starts[1:])
    return {
        int(index): Wanted(feature[rows], rank[rows])
        for index, rows in zip(images, groups, strict=True)
    }


def score_views(
    sae: SparseAutoencoder,
    tokens: Float[Tensor, "B2 P d"],
    images: Sequence[int],
    image_ids: Sequence[str],
    wanted: Mapping[int, Wanted],
    overlap: Overlap,
    *,
    null_draws: int,
    seed: int,
    workers: int,
) -> PairScores:
    """Score every wanted (feature, image) pair of a batch.

    Args:
        sae: the dictionary.
        tokens: patch tokens of view 1 and view 2 of each image, adjacent, [2B, P, d].
        images: index of each image in its set.
        image_ids: its id, which the null's draws depend on.
        wanted: per image, its features.
        overlap: which patches the two views share.
        null_draws: random placements per pair.
        seed: of the null's draws.
        workers: threads for the distances.
    """
    firsts: list[NDArray[np.float64]] = []
    seconds: list[NDArray[np.float64]] = []
    keys: list[tuple[int, str]] = []
    for row, (image, image_id) in enumerate(zip(images, image_ids, strict=True)):
        features = wanted[image].features
        pair = tokens[2 * row : 2 * row + 2]
        first, second = feature_maps(sae, pair, torch.from_numpy(features), overlap)
        firsts.append(first)
        seconds.append(second)
        keys += [(int(feature), image_id) for feature in features]
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    cells_first, cells_second = ((maps > 0).sum((1, 2)) for maps in (first, second))
    both = (cells_first > 0) & (cells_second > 0)
    distance, null = np.full((2, len(first)), np.nan)
    distance[both], null[both] = score_maps(
        first[both],
        second[both],
        keys=[key for key, kept in zip(keys, both, strict=True) if kept],
        null_draws=null_draws,
        seed=seed,
        workers=workers,
    )
    return PairScores(
        feature=np.concatenate([wanted[image].features for image in images]),
        rank=np.concatenate([wanted[image].ranks for image in images]),
        image=np.repeat(np.asarray(images), [len(wanted[image].features) for image in images]),
        emd=distance,
        null=null,
        cells_first=cells_first,
        cells_second=cells_second,
    )
