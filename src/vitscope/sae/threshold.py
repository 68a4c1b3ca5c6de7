"""θ: the threshold under which a token's code no longer depends on its batch."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vitscope.axes import Float, Rows
from vitscope.draws import generator
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.selection import largest_values
from vitscope.tokens.sampling import HeldOut

ROWS_AT_ONCE = 2048
"""Tokens encoded at a time."""

RESAMPLES = 200
"""Bootstrap resamples of the images behind θ's interval."""

CONFIDENCE = 0.95

LOWEST = 0.5
"""Activations are looked at down to this share of θ; where a resample's θ would lie below it (a
handful of images, very unlike each other), the interval ends there."""


@dataclass(frozen=True)
class ThresholdFit:
    """θ and how sure it is.

    Attributes:
        value: θ.
        low: lower end of the 95 % interval.
        high: upper end. NaN, like ``low``, where there is one image, or θ is 0.
        n_images: images behind it.
    """

    value: float
    low: float
    high: float
    n_images: int


def fit_with_interval(sae: SparseAutoencoder, held: HeldOut, *, seed: int) -> ThresholdFit:
    """Fit θ on held-out tokens, and bootstrap it over their images.

    Tokens of an image are alike, so images are resampled, not tokens. Every resample's θ is exact:
    the activations are sorted once, and weighted by how often their image was drawn.

    Args:
        sae: as for :func:`fit_threshold`.
        held: tokens and their images.
        seed: of the resamples.
    """
    value = fit_threshold(sae, held.tokens)
    distinct, image = torch.unique(held.images, return_inverse=True)
    n_images = distinct.numel()
    if n_images < 2 or value == 0:
        return ThresholdFit(value, float("nan"), float("nan"), n_images)
    values, of_image = _activations_above(sae, held.tokens, image, LOWEST * value)
    n_tokens = np.bincount(image.numpy(), minlength=n_images)
    fits: list[float] = []
    random = generator(seed, "threshold-bootstrap")
    for _ in range(RESAMPLES):
        weight = np.bincount(random.integers(0, n_images, n_images), minlength=n_images)
        wanted = sae.k * int(weight @ n_tokens)
        above = weight[of_image].cumsum()  # entries at least as large as each, in the resample
        place = int(np.searchsorted(above, wanted))
        fits.append(float(values[place]) if place < values.size else LOWEST * value)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(fits, [tail, 1 - tail])
    return ThresholdFit(value, float(low), float(high), n_images)


def _activations_above(
    sae: SparseAutoencoder, tokens: Rows, image: Tensor, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the activations above ``least``, descending, and the image of each."""
    cut, values, images = replace(sae, threshold=least), [], []
    for start in range(0, tokens.shape[0], ROWS_AT_ONCE):
        rows = tokens[start : start + ROWS_AT_ONCE].to(sae.b_enc.device)
        codes = cut.encode(rows)
        row, feature = codes.nonzero(as_tuple=True)
        values.append(codes[row, feature].cpu())
        images.append(image[start + row.cpu()])
    found = torch.cat(values)
    order = found.argsort(descending=True, stable=True)
    return found[order].numpy(), torch.cat(images)[order].numpy()


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
