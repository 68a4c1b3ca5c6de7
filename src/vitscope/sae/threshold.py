"""θ: the threshold under which a token's code no longer depends on its batch."""

import torch
from torch import Tensor

from vitscope.axes import Float, Rows
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.selection import largest_values

ROWS_AT_ONCE = 2048
"""Tokens encoded at a time."""


def fit_threshold(sae: SparseAutoencoder, sample: Rows) -> float:
    """Return the θ above which exactly K·N activations of ``sample`` lie, so that mean L0 = K.

    Exact, by a streaming search for the K·N-th and the next largest activation; θ is their
    midpoint. (A running mean of batch minima during training would depend on the batch size.)
    With fewer than K·N positive activations θ is 0 and L0 stays below K; where the two are equal,
    θ is their value and the tied activations fall away.

    Args:
        sae: with weights as they will be used; its own threshold is ignored.
        sample: raw activations ``[N, d]``, not tokens of one batch alone.
    """
    wanted = sae.k * sample.shape[0]
    pool = sae.b_enc.new_empty(0)
    for rows in sample.split(ROWS_AT_ONCE):
        pre = sae.pre_activations(rows.to(sae.b_enc.device))
        found = largest_values(pre.reshape(-1), wanted + 1)
        pool = _top(torch.cat([pool, found]), wanted + 1)
    if pool.numel() <= wanted:  # every positive activation is wanted
        return 0.0
    following, last = torch.sort(pool).values[:2].tolist()
    return _between(following, last, pool)


def _top(values: Float[Tensor, "n"], n: int) -> Float[Tensor, "n_kept"]:
    return values.topk(n, sorted=False).values if values.numel() > n else values


def _between(below: float, above: float, like: Tensor) -> float:
    """Midpoint in the codes' own precision; ``below`` where rounding would reach ``above``."""
    middle = torch.tensor((below + above) / 2, dtype=like.dtype).item()
    return middle if middle < above else below
