"""Tokens that training never sees: on them θ is fitted, and training is watched."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitscope.axes import Float32, Int64
from vitscope.draws import generator

HeldOutKind = Literal["images", "draw", "none"]
"""Whole images; the last draw of every image; or nothing: training tokens are used again."""


@dataclass(frozen=True)
class Holding:
    """What to keep out of training.

    Attributes:
        kind: what is kept out.
        n_tokens: so many tokens are wanted.
        share: at most this share of the images is given up for them.
    """

    kind: HeldOutKind = "none"
    n_tokens: int = 0
    share: float = 0.05


NOTHING = Holding()


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Tokens to measure on.

    Attributes:
        tokens: raw activations.
        images: which image each token is of; the numbers mean nothing else.
        kind: how they differ from training's; ``none``: training sees them too.
    """

    tokens: Float32[Tensor, "n d"]
    images: Int64[Tensor, "n"]
    kind: HeldOutKind

    def first(self, n: int) -> "HeldOut":
        """Return the first ``n`` tokens."""
        return HeldOut(self.tokens[:n], self.images[:n], self.kind)


@dataclass(frozen=True, eq=False)
class Split:
    """Positions of the images that are trained on, and of those that are not, both ascending."""

    trained: NDArray[np.int64]
    held_out: NDArray[np.int64]


def split_images(n_images: int, tokens_per_image: int, holding: Holding, *, seed: int) -> Split:
    """Draw the images to hold out: as many as the wanted tokens need, within the allowed share.

    Of two images or more at least one is held out, where any are.
    """
    everything = np.arange(n_images)
    if holding.kind != "images" or n_images < 2:
        return Split(everything, everything[:0])
    needed = math.ceil(holding.n_tokens / max(1, tokens_per_image))
    n = max(1, min(needed, int(holding.share * n_images)))
    chosen = generator(seed, "held-out").permutation(n_images)[:n]
    mask = np.zeros(n_images, dtype=bool)
    mask[chosen] = True
    return Split(everything[~mask], everything[mask])


def rows_of(images: NDArray[np.int64], tokens_per_image: int) -> Int64[Tensor, "n"]:
    """Return the token rows of ``images``, where every image has so many adjacent ones."""
    rows = images[:, None] * tokens_per_image + np.arange(tokens_per_image)
    return torch.from_numpy(rows.reshape(-1))
