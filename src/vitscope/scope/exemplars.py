"""The images on which each feature is strongest: a streaming, mergeable top-k per feature."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy.typing import NDArray
from torch import Tensor

from vitscope.draws import generator

NO_IMAGE = -1

_INDEX_BITS = 32
_LAST_INDEX = (1 << _INDEX_BITS) - 1

MOST_DENSE_CODES = 1 << 26
"""Codes of so many (token, feature) pairs are held at a time: 256 MB, whatever the dictionary."""


@dataclass
class TopImages:
    """The ``k`` strongest images of every feature seen so far, where the activations lie.

    An entry is one integer, so that order and ties are one comparison: the bits of the activation
    (a positive float32 orders as its bits do) above those of the image, counted backwards, since
    ties go to the lower index. 0 is no image.

    Attributes:
        entries: descending, [m, k].
    """

    entries: Int64[Tensor, "m k"]

    @classmethod
    def empty(cls, n_features: int, k: int) -> "TopImages":
        """Start with no image at all."""
        return cls(torch.zeros(n_features, k, dtype=torch.int64))

    @classmethod
    def of(cls, activation: Float32[Tensor, "m k"], image: Int64[Tensor, "m k"]) -> "TopImages":
        """Return the entries of known exemplars; ``NO_IMAGE`` where there is none."""
        return cls(torch.where(image == NO_IMAGE, 0, _entries(activation, image)))

    @property
    def activation(self) -> Float32[Tensor, "m k"]:
        """Maximum over patch tokens, descending, 0 where there is no image."""
        return (self.entries >> _INDEX_BITS).int().view(torch.float32)

    @property
    def image(self) -> Int64[Tensor, "m k"]:
        """Index of the image in its set, ``NO_IMAGE`` where there is none."""
        index = _LAST_INDEX - (self.entries & _LAST_INDEX)
        return torch.where(self.entries == 0, NO_IMAGE, index)

    def update(self, strongest: Float32[Tensor, "B m"], images: Int64[Tensor, "B"]) -> None:
        """Take in a batch: each feature's maximum activation on each image, and the image indices.

        An image on which a feature is silent never becomes its exemplar.
        """
        # NaN compares false: it would otherwise sort before every number and crowd them out
        fired = strongest.T > 0
        entries = _entries(strongest.T.float(), images.to(strongest.device).expand_as(fired))
        self._keep_best(torch.where(fired, entries, 0))

    def merge(self, other: "TopImages") -> None:
        """Take in what another chunk or rank has found; the order of merging is irrelevant."""
        self._keep_best(other.entries)

    def _keep_best(self, entries: Tensor) -> None:
        k = self.entries.shape[1]
        both = torch.cat([self.entries.to(entries.device), entries], 1)
        self.entries = torch.topk(both, k, dim=1, sorted=True).values


def codes_that_fit(n_images: int, n_tokens: int, n_features: int) -> Iterator[slice]:
    """Yield slices of a batch, one image at least, whose codes fit ``MOST_DENSE_CODES``."""
    n = max(MOST_DENSE_CODES // (n_tokens * n_features), 1)
    for start in range(0, n_images, n):
        yield slice(start, min(start + n, n_images))


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


def _entries(activation: Tensor, image: Tensor) -> Tensor:
    bits = activation.contiguous().view(torch.int32).long()
    return (bits << _INDEX_BITS) | (_LAST_INDEX - image)
