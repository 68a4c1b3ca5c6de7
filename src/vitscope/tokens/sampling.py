"""Which patch tokens training sees, epoch by epoch, and which it never sees: all pure functions."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from vitscope.axes import Float32, Int64
from vitscope.draws import generator
from vitscope.settings import Settings

_ALL_TOKENS = 0


class ActivationSettings(Settings):
    """Which activations are kept on disk for training."""

    tokens_per_image: int = Field(default=4, ge=0)
    """Patch tokens drawn at random per image and epoch (paper, A.2); 0 keeps every patch token."""

    draws: int = Field(default=1, ge=1)
    """Epochs with draws of their own on disk; training beyond them begins again at the first."""

    cache: bool = True
    """Keep the drawn tokens on disk; ``false`` encodes the images anew in every epoch of the
    training, each epoch with a draw of its own, and keeps nothing."""

    window_images: int = Field(default=16_384, ge=1)
    """Without ``cache``: images whose tokens are shuffled together; all, where there are fewer."""

    def kept_per_image(self, n_patches: int) -> int:
        """Return how many of an image's patch tokens an epoch takes."""
        wanted = self.tokens_per_image
        return n_patches if wanted == _ALL_TOKENS else min(wanted, n_patches)


def draw_tokens(
    settings: ActivationSettings, n_patches: int, *, seed: int, epoch: int, image_id: str
) -> NDArray[np.int64]:
    """Return the patch positions [t] that ``epoch`` takes of an image, ascending, all distinct."""
    wanted = settings.kept_per_image(n_patches)
    if wanted == n_patches:
        return np.arange(n_patches)
    random = generator(seed, "tokens", epoch, image_id)
    return np.sort(random.choice(n_patches, wanted, replace=False))


def n_stored_draws(settings: ActivationSettings, n_patches: int) -> int:
    """Return how many draws are worth storing: one is enough where every token is kept."""
    return 1 if settings.kept_per_image(n_patches) == n_patches else settings.draws


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
