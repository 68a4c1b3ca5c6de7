"""θ, under which a token's code no longer depends on its batch, and what the SAE does under it."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vitscope.axes import Rows
from vitscope.draws import generator
from vitscope.intervals import LEVEL
from vitscope.sae.code import SparseCode, sum_of_squares
from vitscope.sae.model import SparseAutoencoder
from vitscope.tokens.sampling import HeldOut

THRESHOLD_ROWS = 2048
"""Tokens encoded at a time."""

_RESAMPLES = 200
"""Bootstrap resamples of the images behind θ's interval."""

_LOWEST = 0.5
"""Activations are sorted down to this share of θ; where a resample's θ would lie below it (a
handful of images, very unlike each other), the interval ends there."""

_EVALUATED_ROWS = 512
"""Tokens encoded at a time for held-out figures: 50 MB of codes at 24,576 features."""

_THRESHOLD_MEMORY = 0.9
"""Of the running θ: it follows the last ten batches or so, whose cuts are near each other."""


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
    values, of_image = _activations_above(sae, held.tokens, image, _LOWEST * value)
    n_tokens = np.bincount(image.numpy(), minlength=n_images)
    fits: list[float] = []
    random = generator(seed, "threshold-bootstrap")
    for _ in range(_RESAMPLES):
        weight = np.bincount(random.integers(0, n_images, n_images), minlength=n_images)
        wanted = sae.k * int(weight @ n_tokens)
        above = weight[of_image].cumsum()  # entries at least as large as each, in the resample
        place = int(np.searchsorted(above, wanted))
        fits.append(float(values[place]) if place < values.size else _LOWEST * value)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(fits, [tail, 1 - tail])
    return ThresholdFit(value, float(low), float(high), n_images)


def _activations_above(
    sae: SparseAutoencoder, tokens: Rows, image: Tensor, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the activations above ``least``, descending, and the image of each."""
    cut, values, images = replace(sae, threshold=least), [], []
    for start in range(0, tokens.shape[0], THRESHOLD_ROWS):
        rows = tokens[start : start + THRESHOLD_ROWS].to(sae.b_enc.device)
        code = SparseCode.from_dense(cut.encode(rows))
        values.append(code.values.cpu())
        images.append(image[start + code.rows.cpu()])
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

    Raises:
        FloatingPointError: a pre-activation is NaN.
    """
    wanted = sae.k * sample.shape[0]
    pool, bound = sae.b_enc.new_empty(0), sae.b_enc.new_zeros(())
    for rows in sample.split(THRESHOLD_ROWS):
        pre = sae.pre_activations(rows.to(sae.b_enc.device)).reshape(-1)
        if bool(pre.amax().isnan()):
            raise FloatingPointError("pre-activations contain NaN")
        pool = torch.cat([pool, pre[pre > bound]])
        if pool.numel() > wanted + 1:
            pool = pool.topk(wanted + 1, sorted=False).values
            bound = pool.amin()  # a full pool changes by what is larger alone
    if pool.numel() <= wanted:  # every positive activation is wanted
        return 0.0
    following, last = torch.sort(pool).values[:2].tolist()
    return _between(following, last, pool)


def _between(below: float, above: float, like: Tensor) -> float:
    """Midpoint in the codes' own precision; ``below`` where rounding would reach ``above``."""
    middle = torch.tensor((below + above) / 2, dtype=like.dtype).item()
    return middle if middle < above else below


def running_threshold(before: float | None, cut: float) -> float:
    """Return the running θ after a batch: an exponential mean of the batches' cuts.

    Args:
        before: θ before it; None before the first batch.
        cut: smallest activation that the batch kept.
    """
    return cut if before is None else _THRESHOLD_MEMORY * before + (1 - _THRESHOLD_MEMORY) * cut


@dataclass(frozen=True)
class HeldOutFigures:
    """What an SAE does on tokens that it was not trained on.

    Attributes:
        fvu: ``Σ‖x − x̂‖² / Σ‖x − μ‖²`` about the tokens' own mean (protocol, section 3).
        l0: active features per token.
        silent_share: share of the features that are active on none of the tokens.
        n_tokens: how many tokens.
    """

    fvu: float
    l0: float
    silent_share: float
    n_tokens: int


def evaluate_held_out(sae: SparseAutoencoder, tokens: Rows) -> HeldOutFigures:
    """Return the figures of ``sae`` on raw ``tokens`` ``[n, d]``, at its own threshold."""
    device = sae.b_enc.device
    fires = torch.zeros(sae.n_features, dtype=torch.int64, device=device)
    mean = tokens.double().mean(0).to(device)
    error = spread = torch.zeros((), dtype=torch.float64, device=device)
    for rows in tokens.split(_EVALUATED_ROWS):
        x = rows.to(device)
        codes = sae.encode(x)
        fires += torch.count_nonzero(codes > 0, dim=0)
        error = error + sum_of_squares(sae.decode(codes, like=x) - x).double()
        spread = spread + (x.double() - mean).square().sum()
    return HeldOutFigures(
        fvu=float(error / spread),
        l0=int(fires.sum()) / tokens.shape[0],
        silent_share=float((fires == 0).double().mean()),
        n_tokens=tokens.shape[0],
    )
