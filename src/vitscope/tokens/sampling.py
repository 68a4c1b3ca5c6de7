"""Which patch tokens of an image an epoch sees: a pure function of (seed, epoch, image id)."""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vitscope.draws import generator
from vitscope.settings import Settings

ALL_TOKENS = 0


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


def draw_tokens(
    settings: ActivationSettings, n_patches: int, *, seed: int, epoch: int, image_id: str
) -> NDArray[np.int64]:
    """Return the patch positions [t] that ``epoch`` takes of an image, ascending, all distinct."""
    wanted = settings.tokens_per_image
    if wanted == ALL_TOKENS or wanted >= n_patches:
        return np.arange(n_patches)
    random = generator(seed, "tokens", epoch, image_id)
    return np.sort(random.choice(n_patches, wanted, replace=False))


def n_stored_draws(settings: ActivationSettings, n_patches: int) -> int:
    """Return how many draws are worth storing: one is enough where every token is kept."""
    takes_all = settings.tokens_per_image == ALL_TOKENS or settings.tokens_per_image >= n_patches
    return 1 if takes_all else settings.draws
