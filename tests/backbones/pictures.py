"""Batches of bytes for backbones: made-up photographs, and noise."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitscope.images.generated import write_generated_images


def generated_pictures(folder: Path, n: int, *, side: int = 160) -> list[Image.Image]:
    """Return ``n`` photo-like pictures."""
    paths = write_generated_images(folder, n, seed=3, side=side)
    return [Image.open(path).convert("RGB") for path in paths]


def noise_batch(n: int, side: int, seed: int = 0) -> Tensor:
    """Return random bytes [n, 3, side, side]."""
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(0, 256, (n, 3, side, side), dtype=np.uint8))
