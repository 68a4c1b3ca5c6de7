"""Tokens that are sparse mixtures of known unit atoms, and how well a dictionary found them."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def unit_atoms(n: int, width: int, *, seed: int) -> Tensor:
    """Random unit rows ``[n, width]``."""
    g = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, width, generator=g), dim=1)


def mixtures(atoms: Tensor, n_tokens: int, active: int, *, noise: float, seed: int) -> Tensor:
    """Mix ``active`` atoms a token, coefficients in [0.5, 1.5]; raw scale 20, mean far from 0."""
    g = torch.Generator().manual_seed(seed)
    scores = torch.rand(n_tokens, atoms.shape[0], generator=g)
    chosen = scores.topk(active, dim=1).indices
    weights = torch.zeros_like(scores)
    weights.scatter_(1, chosen, 0.5 + torch.rand(n_tokens, active, generator=g))
    clean = weights @ atoms
    offset = torch.linspace(-5, 5, atoms.shape[1])
    return 20 * (clean + noise * torch.randn(clean.shape, generator=g) + offset)


def hungarian_cosine(atoms: Tensor, w_dec: Tensor) -> Tensor:
    """Cosine of each atom with the feature that a best one-to-one matching gives it."""
    cosine = (atoms @ w_dec.T).double()
    rows, columns = linear_sum_assignment(-cosine.numpy())
    return cosine[rows, columns]
