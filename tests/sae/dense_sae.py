"""The SAE objective written naively: dense codes, full sorts, autograd. The reference."""

import torch
from torch import Tensor

from vitscope.sae.parameters import Parameters
from vitscope.sae.settings import Objective


def dense_top_k(pre: Tensor, n_keep: int) -> Tensor:
    """Mask of the largest positive entries of the batch, lower flat index first, by full sort."""
    order = torch.sort(pre.detach().reshape(-1), descending=True, stable=True).indices
    mask = torch.zeros(pre.numel(), dtype=torch.bool)
    mask[order[:n_keep]] = True
    return mask.view_as(pre) & (pre > 0)


def dense_loss(
    parameters: Parameters, x: Tensor, objective: Objective, dead: Tensor
) -> tuple[Tensor, Tensor]:
    """Reconstruction and auxiliary loss, differentiable in every parameter."""
    pre = (x - parameters.b_dec) @ parameters.w_enc.T + parameters.b_enc
    code = pre * dense_top_k(pre, objective.k * x.shape[0])
    x_hat = code @ parameters.w_dec + parameters.b_dec
    loss = ((x - x_hat) ** 2).sum() / x.numel()
    if not dead.any():
        return loss, torch.zeros((), dtype=x.dtype)
    residual = (x - x_hat).detach()
    of_dead = torch.where(dead, pre, torch.zeros_like(pre))
    per_token = torch.stack([dense_top_k(row[None], objective.aux_k)[0] for row in of_dead])
    r_hat = (of_dead * per_token) @ parameters.w_dec
    variance = ((residual - residual.mean(0)) ** 2).sum()
    return loss, ((r_hat - residual) ** 2).sum() / variance


def random_parameters(
    width: int, n_features: int, *, seed: int, dtype: torch.dtype = torch.float64
) -> Parameters:
    """Parameters with nothing special about them: biases non-zero, encoder not the transpose."""
    g = torch.Generator().manual_seed(seed)
    w_dec = torch.nn.functional.normalize(
        torch.randn(n_features, width, generator=g, dtype=dtype), dim=1
    )
    return Parameters(
        w_enc=w_dec + 0.3 * torch.randn(n_features, width, generator=g, dtype=dtype),
        b_enc=0.3 * torch.randn(n_features, generator=g, dtype=dtype),
        w_dec=w_dec,
        b_dec=0.5 * torch.randn(width, generator=g, dtype=dtype),
    )


def autograd_leaves(parameters: Parameters) -> Parameters:
    """Copies that ask for a gradient."""
    return Parameters(
        **{name: t.clone().requires_grad_() for name, t in parameters.named().items()}
    )
