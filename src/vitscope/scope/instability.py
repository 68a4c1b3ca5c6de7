"""How far the attention of a token moves when its context shifts (protocol, section 7).

Three readings of the paper's text, in one pass over one pair of attention matrices:

* ``query``: the token's own row over the overlap's keys;
* ``key``: the token's column, as a map over the overlap's queries;
* ``received``: per head, the map of attention received over outlier keys, and over other keys.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitscope.draws import generator
from vitscope.scope.outliers import Membership, outlier_membership
from vitscope.scope.transport import emd
from vitscope.scope.views import Overlap

READINGS = ("query", "received", "key")

Attention = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class GroupDistance:
    """EMD of one group of tokens on one image, under one reading.

    Attributes:
        mean: in patches, over tokens and heads; NaN when the group is empty here.
        n: distances that entered it.
        n_missed: maps empty in exactly one view, which count D_grid.
    """

    mean: float
    n: int
    n_missed: int


@dataclass(frozen=True)
class ImageInstability:
    """One image's distances: reading -> (outlier tokens, other tokens)."""

    by_reading: dict[str, tuple[GroupDistance, GroupDistance]]
    n_outliers: int


@dataclass(frozen=True)
class GroupInstability:
    """One group of tokens under one reading, over a set of images; distances in patches.

    Attributes:
        mean: mean over images of the per-image mean; NaN without a token of the group.
        error: standard error of that mean over images; NaN with fewer than two.
        n_images: images that have a token of the group in the overlap.
        n_maps: distances that entered (tokens times heads, or heads).
        n_missed: of these, maps empty in exactly one view, which count D_grid.
        pooled: mean over all distances, images weighted by how many they have.
    """

    mean: float
    error: float
    n_images: int
    n_maps: int
    n_missed: int
    pooled: float


@dataclass(frozen=True)
class ReadingInstability:
    """Both groups under one reading (protocol, section 7)."""

    reading: str
    out: GroupInstability
    non: GroupInstability


def image_instability(
    attention: tuple[Attention, Attention],
    outliers: tuple[Mask, Mask],
    overlap: Overlap,
    *,
    membership: Membership,
    tokens_per_image: int,
    key: tuple[int | str, ...],
    workers: int = 1,
) -> ImageInstability:
    """Compare the two views of one image.

    Args:
        attention: probabilities of patch queries over patch keys, [A, P, P], of each view.
        outliers: outlier mask over patch tokens, [P], of each view.
        overlap: which patches the views share.
        membership: when a token that both views show counts as an outlier.
        tokens_per_image: other tokens drawn, by ``key``; 0 takes all. Outliers all count.
        key: seed and image id: the draw depends on nothing else.
        workers: threads.
    """
    indices = (overlap.first, overlap.second)
    first, second = (w[:, i][:, :, i] for w, i in zip(attention, indices, strict=True))
    mask_first, mask_second = (o[i] for o, i in zip(outliers, indices, strict=True))
    is_outlier = outlier_membership(mask_first, mask_second, membership)
    chosen = _choose_tokens(is_outlier, tokens_per_image, key)
    groups = [np.flatnonzero(is_outlier), chosen]

    def per_token(one: Attention, other: Attention) -> tuple[GroupDistance, GroupDistance]:
        out, non = (_compare(one[:, g], other[:, g], overlap, workers) for g in groups)
        return out, non

    def received() -> tuple[GroupDistance, GroupDistance]:
        # each view's own outliers: a map of where they are, not of where they might be
        one, other = first.mean(1), second.mean(1)
        sides = [(mask_first, mask_second), (~mask_first, ~mask_second)]
        out, non = (_compare(one[:, None] * a, other[:, None] * b, overlap, 1) for a, b in sides)
        return out, non

    return ImageInstability(
        by_reading={
            "query": per_token(first, second),
            "received": received(),
            "key": per_token(first.swapaxes(1, 2), second.swapaxes(1, 2)),
        },
        n_outliers=int(is_outlier.sum()),
    )


def _choose_tokens(is_outlier: Mask, n: int, key: tuple[int | str, ...]) -> NDArray[np.int64]:
    others = np.flatnonzero(~is_outlier)
    if n == 0 or n >= others.size:
        return others
    return np.sort(generator(*key, "instability").choice(others, n, replace=False))


def _compare(first: Attention, second: Attention, overlap: Overlap, workers: int) -> GroupDistance:
    """Average the EMD over maps [A, G, Q]; empty in one view counts D_grid, in both nothing."""
    side = overlap.side
    one, other = first.reshape(-1, side, side), second.reshape(-1, side, side)
    mass_one, mass_other = one.any((1, 2)), other.any((1, 2))
    both, missed = mass_one & mass_other, mass_one != mass_other
    n = int(both.sum() + missed.sum())
    if n == 0:
        return GroupDistance(float("nan"), 0, 0)
    total = np.sum(emd(one[both], other[both], workers=workers)) + missed.sum() * overlap.diameter
    return GroupDistance(float(total) / n, n, int(missed.sum()))


def summarise_group(
    means: NDArray[np.float64], n_maps: NDArray[np.float64], n_missed: NDArray[np.float64]
) -> GroupInstability:
    """Average one group's per-image means [N] over the images that have a token of it."""
    has = np.isfinite(means)
    n_images, total = int(has.sum()), float(n_maps[has].sum())
    return GroupInstability(
        mean=float(means[has].mean()) if n_images else float("nan"),
        error=float(means[has].std(ddof=1) / np.sqrt(n_images)) if n_images > 1 else float("nan"),
        n_images=n_images,
        n_maps=int(total),
        n_missed=int(n_missed.sum()),
        pooled=float((means[has] * n_maps[has]).sum() / total) if total else float("nan"),
    )
