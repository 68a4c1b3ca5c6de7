"""Small sparse autoencoders and pair tables with known content."""

import numpy as np
import torch
from numpy.typing import NDArray

from vitscope.sae.model import SparseAutoencoder
from vitscope.scope.pairs import PairScores


def toy_sae(width: int, n_features: int, *, threshold: float = 0.4, seed: int = 0):
    """Return an SAE with random weights and biases, in float64."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    w_dec = torch.nn.functional.normalize(normal(n_features, width), dim=1)
    return SparseAutoencoder(
        w_enc=w_dec.T.contiguous() + 0.1 * normal(width, n_features),
        b_enc=0.2 * normal(n_features) - 0.3,
        w_dec=w_dec,
        b_dec=0.5 * normal(width),
        threshold=threshold,
        k=4,
    )


def slow_code(sae: SparseAutoencoder, token: NDArray[np.float64], feature: int) -> float:
    """Encode one token for one feature, number by number."""
    pre = float(sae.b_enc[feature])
    for axis in range(sae.width):
        pre += (float(token[axis]) - float(sae.b_dec[axis])) * float(sae.w_enc[axis, feature])
    return pre if pre > 0 and pre > sae.threshold else 0.0


def random_pairs(random: np.random.Generator, n: int, n_features: int) -> PairScores:
    """Return pairs of which some are empty in one view, some in both."""
    cells = random.integers(0, 4, (2, n)) * (random.random((2, n)) < 0.7)
    both = (cells > 0).all(0)
    return PairScores(
        feature=random.integers(0, n_features, n),
        rank=np.arange(n),
        image=random.integers(0, 50, n),
        emd=np.where(both, random.random(n) * 5, np.nan),
        null=np.where(both, random.random(n) * 6, np.nan),
        cross=np.where(both & (random.random(n) < 0.8), random.random(n) * 6, np.nan),
        cells_first=cells[0],
        cells_second=cells[1],
        reach_first=np.where(cells[0] > 0, 1, 0) + random.random(n),
        reach_second=np.where(cells[1] > 0, 1, 0) + random.random(n),
        beyond_first=1.5 * random.random(n),
        beyond_second=1.5 * random.random(n),
    )
