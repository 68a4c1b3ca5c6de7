"""From exemplars to pair scores: only the images that some feature wants are encoded again."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitscope.draws import generator
from vitscope.emd.sparse_maps import SparseMaps
from vitscope.sae.model import SparseAutoencoder
from vitscope.scope.pair_maps import PairMaps
from vitscope.scope.pairs import PairScores, cross_image_distances, feature_maps, score_maps
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


@dataclass(frozen=True)
class GatheredPairs:
    """The wanted (feature, image) pairs of a batch, with their maps, before any distance.

    Attributes:
        feature: index in the dictionary, [N].
        rank: of the image among the feature's exemplars, [N].
        image: index of the image in its set, [N].
        image_ids: its id, [N].
        maps: on the overlap.
    """

    feature: NDArray[np.int64]
    rank: NDArray[np.int64]
    image: NDArray[np.int64]
    image_ids: list[str]
    maps: PairMaps


def gather_pairs(
    sae: SparseAutoencoder,
    tokens: Float[Tensor, "B2 P d"],
    images: Sequence[int],
    image_ids: Sequence[str],
    wanted: Mapping[int, Wanted],
    overlap: Overlap,
) -> GatheredPairs:
    """Encode, for every image of a batch, the features that want it, and no other.

    Args:
        sae: the dictionary.
        tokens: patch tokens of view 1 and view 2 of each image, adjacent, [2B, P, d].
        images: index of each image in its set.
        image_ids: its id.
        wanted: per image, its features.
        overlap: which patches the two views share.
    """
    chunks: list[PairMaps] = []
    sae = sae.to(tokens.device)
    for row, image in enumerate(images):
        features = torch.from_numpy(wanted[image].features)
        dense = feature_maps(sae, tokens[2 * row : 2 * row + 2], features, overlap)
        chunks.append(PairMaps(*(SparseMaps.from_dense(view) for view in dense)))
    counts = [len(wanted[image].features) for image in images]
    return GatheredPairs(
        feature=np.concatenate([wanted[image].features for image in images]),
        rank=np.concatenate([wanted[image].ranks for image in images]),
        image=np.repeat(np.asarray(images), counts),
        image_ids=[name for name, n in zip(image_ids, counts, strict=True) for _ in range(n)],
        maps=PairMaps.joined(chunks),
    )


def score_pairs(gathered: GatheredPairs, *, null_draws: int, seed: int, workers: int) -> PairScores:
    """Compute the distances of gathered pairs; ``cross``, which needs all of them, stays NaN.

    Args:
        gathered: pairs with their maps.
        null_draws: random placements per pair.
        seed: of the null's draws.
        workers: threads for the distances.
    """
    maps = gathered.maps
    cells_first, cells_second = (np.diff(m.offsets) for m in (maps.first, maps.second))
    both = np.flatnonzero((cells_first > 0) & (cells_second > 0))
    distance, null = np.full((2, len(maps)), np.nan)
    distance[both], null[both] = score_maps(
        maps.take(both),
        gathered.feature[both],
        [gathered.image_ids[row] for row in both],
        null_draws=null_draws,
        seed=seed,
        workers=workers,
    )
    return PairScores(
        feature=gathered.feature,
        rank=gathered.rank,
        image=gathered.image,
        emd=distance,
        null=null,
        cross=np.full(len(maps), np.nan),
        cells_first=cells_first,
        cells_second=cells_second,
    )


def score_stream(
    sae: SparseAutoencoder,
    batches: Iterable[tuple[Float[Tensor, "B2 P d"], Sequence[int], Sequence[str]]],
    wanted: Mapping[int, Wanted],
    overlap: Overlap,
    *,
    null_draws: int,
    seed: int,
    workers: int,
) -> tuple[PairScores, PairMaps]:
    """Score batch after batch; the distances of one are computed while the next is encoded.

    Args:
        sae: the dictionary.
        batches: tokens, image indices and image ids of each, as :func:`gather_pairs` takes them;
            at least one.
        wanted: per image, its features.
        overlap: which patches the two views share.
        null_draws: random placements per pair.
        seed: of the null's draws.
        workers: threads for the distances.

    Returns:
        the pairs in the order they came, and their maps.
    """
    distances = partial(score_pairs, null_draws=null_draws, seed=seed, workers=workers)
    maps: list[PairMaps] = []
    scored: list[Future[PairScores]] = []
    with ThreadPoolExecutor(1) as beside:
        for tokens, images, image_ids in batches:
            gathered = gather_pairs(sae, tokens, images, image_ids, wanted, overlap)
            maps.append(gathered.maps)
            scored.append(beside.submit(distances, gathered))
    return PairScores.concatenated([f.result() for f in scored]), PairMaps.joined(maps)


def ordered_pairs(pairs: PairScores, maps: PairMaps | None, *, workers: int = 1) -> PairScores:
    """Order pairs by (feature, rank), and fill in ``cross`` where there are maps."""
    order = np.lexsort((pairs.rank, pairs.feature))
    ordered = pairs.take(order)
    if maps is None:
        return ordered
    cross = cross_image_distances(ordered, maps.take(order), workers=workers)
    return replace(ordered, cross=cross)
