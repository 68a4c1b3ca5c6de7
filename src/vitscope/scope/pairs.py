"""A feature on one exemplar image: its maps in the two shifted views, and how far apart they are.

Only the images that some feature wants are encoded again, and of each only the features that want
it. Beside the distance of a pair stand two nulls: the *relocation* null, the distance of the same
masses on cells drawn at random, and the *cross* null, the distance between different images.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack
from torch import Tensor

from vitscope.axes import Reals
from vitscope.draws import draw_key
from vitscope.errors import ConfigError
from vitscope.sae.model import SparseAutoencoder
from vitscope.scope.exemplars import Wanted
from vitscope.scope.views import Overlap
from vitscope.transport.emd import emd

MissKind = Literal["flicker", "border", "departure"]
"""Where a miss comes from; see :attr:`PairScores.misses`."""

MISS_KINDS: tuple[MissKind, ...] = get_args(MissKind)

FLICKER = 0.5
"""Share of what it must exceed to which a feature comes that has not gone, though it is silent."""

_VIEWS = ("first", "second")
_ENTRY_BITS, _ATTEMPT_BITS = 24, 24


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
        reach_first: how near the feature comes to firing on the overlap, in view 1: the largest
            pre-activation there over what it must exceed; NaN where the SAE has no threshold.
        reach_second: the same in view 2.
        beyond_first: the same on the patches that view 1 alone shows, within s + 1 patches of where
            view 2 is strongest on the overlap; NaN where there are none.
        beyond_second: on those that view 2 alone shows, near to where view 1 is strongest.
    """

    feature: NDArray[np.int64]
    rank: NDArray[np.int64]
    image: NDArray[np.int64]
    emd: Reals
    null: Reals
    cross: Reals
    cells_first: NDArray[np.int64]
    cells_second: NDArray[np.int64]
    reach_first: Reals
    reach_second: Reals
    beyond_first: Reals
    beyond_second: Reals

    @classmethod
    def empty(cls) -> Self:
        """Return no pair at all."""
        whole, real = np.zeros(0, np.int64), np.zeros(0)
        return cls(whole, whole, whole, real, real, real, whole, whole, real, real, real, real)

    @classmethod
    def concatenated(cls, chunks: Sequence[Self]) -> Self:
        """Concatenate chunks, of which there is at least one."""
        names = [f.name for f in fields(cls)]
        return cls(**{name: np.concatenate([getattr(c, name) for c in chunks]) for name in names})

    def take(self, rows: NDArray[np.int64]) -> "PairScores":
        """Return some of the rows, in the order asked for."""
        return PairScores(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @property
    def strength(self) -> Reals:
        """How far the feature exceeds its threshold in the stronger view; NaN without one."""
        return np.fmax(self.reach_first, self.reach_second)

    def strong(self, least: float) -> "PairScores":
        """Return the pairs of at least this strength; all of them for 0.

        Raises:
            ConfigError: there are pairs, and their SAE has no threshold to compare with.
        """
        if least <= 0:
            return self
        if len(self.feature) and np.isnan(self.strength).all():
            raise ConfigError(
                "scope.min_strength compares with a threshold, and this SAE has none (a plain "
                "ReLU); leave it out"
            )
        return self.take(np.flatnonzero(self.strength >= least))

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Pairs with mass in both views."""
        return (self.cells_first > 0) & (self.cells_second > 0)

    @property
    def missed(self) -> NDArray[np.bool_]:
        """Pairs with mass in exactly one view."""
        return (self.cells_first > 0) != (self.cells_second > 0)

    @property
    def misses(self) -> dict[MissKind, NDArray[np.bool_]]:
        """The missed pairs by where the miss comes from; those of an SAE without threshold in none.

        The view in which the feature is silent decides. *Flicker*: its pre-activation still comes
        to ``FLICKER`` of what it must exceed, so that a small change crossed the threshold; two
        thresholds for one signal are Canny's hysteresis. *Border*: it does not, but fires on
        patches that this view alone shows, close to where the other view is strongest, so that its
        content lies across the overlap's edge.
        *Departure*: neither.
        """
        reach = self._of_silent_view(self.reach_first, self.reach_second)
        beyond = self._of_silent_view(self.beyond_first, self.beyond_second)
        told = self.missed & ~self.untold
        flicker = told & (reach >= FLICKER)
        border = told & ~flicker & (beyond >= 1)
        return {"flicker": flicker, "border": border, "departure": told & ~flicker & ~border}

    @property
    def untold(self) -> NDArray[np.bool_]:
        """Missed pairs of which nothing tells where the miss comes from: without a threshold."""
        return self.missed & np.isnan(self._of_silent_view(self.reach_first, self.reach_second))

    def _of_silent_view(self, first: Reals, second: Reals) -> Reals:
        return np.where(self.cells_second == 0, second, first)


@dataclass(frozen=True)
class PairMaps:
    """The maps of N pairs on an overlap of q x q patches, as cells with mass.

    Attributes:
        first: as view 1 sees it, float64 [N, q²].
        second: as view 2 does.
        side: q.
    """

    first: csr_array
    second: csr_array
    side: int

    @classmethod
    def of(cls, first: NDArray[np.floating], second: NDArray[np.floating]) -> Self:
        """Keep the cells with mass of maps [N, q, q]."""

        def sparse(view: NDArray[np.floating]) -> csr_array:
            flat = view.reshape(len(view), -1)
            rows, cells = np.nonzero(flat)
            ends = np.searchsorted(rows, np.arange(len(flat) + 1))
            # csr_array(flat) would go by way of COO, which costs more than the rest of it
            return csr_array((flat[rows, cells].astype(np.float64), cells, ends), shape=flat.shape)

        return cls(sparse(first), sparse(second), first.shape[-1])

    @classmethod
    def joined(cls, chunks: Sequence[Self]) -> Self:
        """Concatenate; there must be at least one chunk."""
        first, second = (
            csr_array(vstack([getattr(chunk, view) for chunk in chunks], format="csr"))
            for view in _VIEWS
        )
        return cls(first, second, chunks[0].side)

    def take(self, rows: NDArray[np.int64]) -> "PairMaps":
        """Return some pairs, in the order asked for."""
        return PairMaps(self.first[rows], self.second[rows], self.side)

    def distances(self, workers: int) -> Reals:
        """Return the EMD of every pair, [N], in patches; NaN where a map is empty."""
        grid = (self.side, self.side)
        return np.asarray(emd(self.first, self.second, grid=grid, workers=workers))

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the maps by name, for the disk: float32 holds an activation exactly."""
        tensors: dict[str, Tensor] = {}
        for view in _VIEWS:
            maps: csr_array = getattr(self, view)
            tensors[f"{view}.cells"] = torch.from_numpy(maps.indices.astype(np.int32))
            tensors[f"{view}.values"] = torch.from_numpy(maps.data.astype(np.float32))
            tensors[f"{view}.offsets"] = torch.from_numpy(maps.indptr.astype(np.int64))
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], side: int) -> Self:
        """Return what :meth:`to_tensors` was called on; other names are ignored."""

        def maps(view: str) -> csr_array:
            names = (f"{view}.{part}" for part in ("values", "cells", "offsets"))
            values, cells, offsets = (tensors[name].numpy() for name in names)
            parts = values.astype(np.float64), cells, offsets
            return csr_array(parts, shape=(len(offsets) - 1, side * side))

        return cls(maps("first"), maps("second"), side)


def feature_reach(
    sae: SparseAutoencoder,
    tokens: Float[Tensor, "2 P d"],
    features: Int64[Tensor, "F"],
    overlap: Overlap,
) -> Reals:
    """Return how near ``features`` come to firing: on the overlap and beyond it, by view [2, 2, F].

    The largest of ``SparseAutoencoder.margins`` over the overlap's patches; and over the patches
    that this view alone shows, within s + 1 patches of where the other view is strongest on the
    overlap: content there may lie across the edge. NaN where there is no such patch.
    """
    margins = [sae.margins(one, features.to(one.device)).double().cpu().numpy() for one in tokens]
    found = np.full((2, 2, len(features)), np.nan)
    positions = overlap.first, overlap.second
    for view in (0, 1):
        shared, others = positions[view], positions[1 - view]
        own = np.setdiff1d(np.arange(overlap.grid**2), shared)
        # fmax: a token without a bar to exceed says nothing, the others do
        found[0, view] = np.fmax.reduce(margins[view][shared])
        known = np.nan_to_num(margins[1 - view][others], nan=-np.inf)
        strongest = overlap.places(1 - view)[others[known.argmax(0)]]  # [F, 2]
        away = np.abs(overlap.places(view)[own][:, None] - strongest).max(-1)  # [own, F]
        near = np.where(away <= overlap.shift + 1, margins[view][own], np.nan)
        found[1, view] = np.fmax.reduce(near)
    return found


def feature_maps(
    sae: SparseAutoencoder,
    tokens: Float[Tensor, "2 P d"],
    features: Int64[Tensor, "F"],
    overlap: Overlap,
) -> tuple[Reals, Reals]:
    """Return the maps [F, q, q] of ``features`` on the overlap, as view 1 and view 2 see it."""
    maps: list[Reals] = []
    for view, positions in enumerate((overlap.first, overlap.second)):
        codes = sae.encode(tokens[view, torch.from_numpy(positions).to(tokens.device)], features)
        # a signed top-k has negative codes, which are no presence of the feature
        flat = codes.clamp_min(0).T.double().cpu().numpy()
        maps.append(flat.reshape(len(features), overlap.side, overlap.side))
    return maps[0], maps[1]


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
        batches: of some images, at least once: the patch tokens of view 1 and view 2 of each,
            adjacent, [2B, P, d]; each one's index in its set; its id.
        wanted: per image, its features.
        overlap: which patches the two views share.
        null_draws: random placements per pair.
        seed: of the null's draws.
        workers: threads for the distances.

    Returns:
        the pairs in the order they came, with ``cross``, which needs all of them, NaN; their maps.
    """
    distances = partial(_with_distances, null_draws=null_draws, seed=seed, workers=workers)
    every: list[PairMaps] = []
    scored: list[Future[PairScores]] = []
    with ThreadPoolExecutor(1) as beside:
        for tokens, images, image_ids in batches:
            maps, reach = _batch_maps(sae.to(tokens.device), tokens, images, wanted, overlap)
            counts = [len(wanted[image].features) for image in images]
            pairs = _without_distances(images, counts, wanted, maps, reach)
            names = [name for name, n in zip(image_ids, counts, strict=True) for _ in range(n)]
            every.append(maps)
            scored.append(beside.submit(distances, pairs, names, maps))
    return PairScores.concatenated([f.result() for f in scored]), PairMaps.joined(every)


def ordered_pairs(pairs: PairScores, maps: PairMaps | None, *, workers: int = 1) -> PairScores:
    """Order pairs by (feature, rank), and fill in ``cross`` where there are maps."""
    order = np.lexsort((pairs.rank, pairs.feature))
    ordered = pairs.take(order)
    if maps is None:
        return ordered
    return replace(ordered, cross=_cross_distances(ordered, maps.take(order), workers))


def score_maps(
    maps: PairMaps,
    features: NDArray[np.int64],
    image_ids: Sequence[str],
    *,
    null_draws: int,
    seed: int,
    workers: int,
) -> tuple[Reals, Reals]:
    """Return each pair's EMD [N] and its relocation null [N], in patches; NaN where a map is empty.

    Args:
        maps: of N pairs.
        features: the feature of each pair.
        image_ids: its exemplar image; on the two alone, and the seed, the null's draws depend.
        null_draws: random placements per pair; 0 gives a null of NaN.
        seed: seed of the draws.
        workers: threads.
    """
    distances = maps.distances(workers)
    if null_draws == 0:
        return distances, np.full(len(features), np.nan)
    keys = placement_keys(features, image_ids, seed=seed)
    total = np.zeros(len(features))
    for draw in range(null_draws):
        first, second = (
            place_at_random(one, keys, draw=draw, view=view)
            for view, one in enumerate((maps.first, maps.second))
        )
        total += PairMaps(first, second, maps.side).distances(workers)
    return distances, total / null_draws


def placement_keys(
    features: NDArray[np.int64], image_ids: Sequence[str], *, seed: int
) -> NDArray[np.uint64]:
    """Return one key of the relocation null's draws per (feature, image id) pair, [N]."""
    of_image = {name: draw_key(seed, "null", name) & 0xFFFFFFFFFFFFFFFF for name in set(image_ids)}
    image = np.asarray([of_image[name] for name in image_ids], dtype=np.uint64)
    return _mixed(image ^ _mixed(features.astype(np.uint64)))


def place_at_random(
    maps: csr_array, keys: NDArray[np.uint64], *, draw: int, view: int
) -> csr_array:
    """Return maps [N, cells] with their masses moved to distinct cells, uniformly drawn.

    Args:
        maps: of N pairs.
        keys: of :func:`placement_keys`, [N].
        draw: number of the draw, from 0.
        view: 0 or 1: the two views are placed independently.
    """
    # A draw hashes (seed, feature, image id, draw, view, entry, attempt): it does not depend on the
    # batch. A cell that an earlier entry of its map has is drawn again. The rule only asks which
    # cells are equal, so renaming the cells changes no probability: every choice of distinct cells
    # is as likely as any other, as if drawn without replacement.
    shape: Any = maps.shape
    n_maps, n_cells = shape
    counts = np.diff(maps.indptr)
    owner = np.repeat(np.arange(n_maps), counts)
    entry = np.arange(len(owner)) - np.repeat(maps.indptr[:-1], counts)
    assert counts.max(initial=0) < 1 << _ENTRY_BITS
    stream = _mixed(keys ^ _mixed(np.full_like(keys, 2 * draw + view + 1)))[owner]
    stream = stream + (entry.astype(np.uint64) << np.uint64(_ATTEMPT_BITS))
    cells = np.zeros(len(owner), np.int64)
    attempt, again = 0, np.arange(len(owner))
    while again.size:
        hashed = _mixed(stream[again] + np.uint64(attempt))
        cells[again] = (hashed % np.uint64(n_cells)).astype(np.int64)
        place = owner * n_cells + cells
        order = np.argsort(place, kind="stable")
        again = order[1:][np.diff(place[order]) == 0]
        attempt += 1
    return csr_array((maps.data, cells.astype(np.int32), maps.indptr), shape=shape)


def _batch_maps(
    sae: SparseAutoencoder,
    tokens: Float[Tensor, "B2 P d"],
    images: Sequence[int],
    wanted: Mapping[int, Wanted],
    overlap: Overlap,
) -> tuple[PairMaps, Reals]:
    """Encode, for every image of a batch, the features that want it, and no other.

    Returns:
        the maps of N pairs, and :func:`feature_reach` of them, [2, 2, N].
    """
    chunks: list[PairMaps] = []
    reach: list[Reals] = []
    for row, image in enumerate(images):
        features = torch.from_numpy(wanted[image].features)
        views = tokens[2 * row : 2 * row + 2]
        chunks.append(PairMaps.of(*feature_maps(sae, views, features, overlap)))
        reach.append(feature_reach(sae, views, features, overlap))
    return PairMaps.joined(chunks), np.concatenate(reach, axis=-1)


def _without_distances(
    images: Sequence[int],
    counts: Sequence[int],
    wanted: Mapping[int, Wanted],
    maps: PairMaps,
    reach: Reals,
) -> PairScores:
    unknown = np.full(sum(counts), np.nan)
    (reach_first, reach_second), (beyond_first, beyond_second) = reach
    return PairScores(
        feature=np.concatenate([wanted[image].features for image in images]),
        rank=np.concatenate([wanted[image].ranks for image in images]),
        image=np.repeat(np.asarray(images), counts),
        emd=unknown,
        null=unknown,
        cross=unknown,
        cells_first=np.diff(maps.first.indptr).astype(np.int64),
        cells_second=np.diff(maps.second.indptr).astype(np.int64),
        reach_first=reach_first,
        reach_second=reach_second,
        beyond_first=beyond_first,
        beyond_second=beyond_second,
    )


def _with_distances(
    pairs: PairScores,
    image_ids: Sequence[str],
    maps: PairMaps,
    *,
    null_draws: int,
    seed: int,
    workers: int,
) -> PairScores:
    both = np.flatnonzero(pairs.kept)
    distance, null = np.full((2, len(pairs.feature)), np.nan)
    distance[both], null[both] = score_maps(
        maps.take(both),
        pairs.feature[both],
        [image_ids[row] for row in both.tolist()],
        null_draws=null_draws,
        seed=seed,
        workers=workers,
    )
    return replace(pairs, emd=distance, null=null)


def _cross_distances(pairs: PairScores, maps: PairMaps, workers: int) -> Reals:
    """Return ``cross`` of every pair [N]; pairs and maps are ordered by (feature, rank)."""
    found = np.full(len(pairs.feature), np.nan)
    kept = np.flatnonzero(pairs.kept)
    if kept.size == 0:
        return found
    starts = np.flatnonzero(np.diff(pairs.feature[kept], prepend=-1))
    following = np.arange(1, kept.size + 1)
    following[np.append(starts[1:], kept.size) - 1] = starts  # the last one's next is the first
    differ = following != np.arange(kept.size)
    one, other = kept[differ], kept[following[differ]]
    crossed = PairMaps(maps.take(one).first, maps.take(other).second, maps.side)
    found[one] = crossed.distances(workers)
    return found


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64 bits (the finaliser of SplitMix64; Steele, Lea and Flood, 2014)."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
