"""Activation-weighted CDS of tokens, and its course over the norm spectrum (paper, Figure 7)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitscope.axes import Reals
from vitscope.sae.code import SparseCode
from vitscope.scope.bootstrap import image_weights, percentile_ends

_CELLS_PER_BIN = 40
"""Cells of equal token count in which the bootstrap adds up each image's tokens."""


@dataclass(frozen=True)
class TokenScope:
    """What tokens' active features say of their scope.

    Attributes:
        awcds: Σ a·CDS / Σ a over the active features with a CDS; NaN without any, [N].
        scored: Σ a over the active features with a CDS, [N].
        active: Σ a over all active features, [N].
    """

    awcds: Float[Tensor, "N"]
    scored: Float[Tensor, "N"]
    active: Float[Tensor, "N"]


@dataclass(frozen=True)
class NormSpectrum:
    """Mean awCDS in percentile bins of the patch-token norm; arrays [bins].

    Attributes:
        percentile: middle of each bin, 0 to 100.
        norm: mean norm of its tokens.
        awcds: mean awCDS of its tokens that have one; NaN where none has.
        low: lower end of the mean's bootstrap interval over images.
        high: its upper end.
        n_tokens: tokens in the bin.
        n_silent: tokens without any active feature.
        n_unscored: tokens with active features, none of which has a CDS.
        scored_share: share of the bin's activation that lies on features with a CDS.
    """

    percentile: Reals
    norm: Reals
    awcds: Reals
    low: Reals
    high: Reals
    n_tokens: NDArray[np.int64]
    n_silent: NDArray[np.int64]
    n_unscored: NDArray[np.int64]
    scored_share: Reals


def token_scope(codes: Float[Tensor, "N m"], cds: Float[Tensor, "m"]) -> TokenScope:
    """Weigh the scores ``cds`` (NaN where a feature has none) by each token's activations."""
    # per feature: what a unit of its activation adds to the three sums
    adds = torch.stack([cds.nan_to_num(0.0), cds.isfinite(), torch.ones_like(cds)], 1).double()
    code = SparseCode.from_dense(codes)
    weighted, scored, active = code.with_values(code.values.double()).decode(adds).unbind(1)
    return TokenScope(weighted / scored.where(scored > 0, float("nan")), scored, active)


def norm_spectrum(
    norms: Reals,
    awcds: Reals,
    scored: Reals,
    active: Reals,
    n_bins: int,
    *,
    seed: int,
) -> NormSpectrum:
    """Sort tokens by norm and average awCDS in ``n_bins`` bins of equal token count.

    The intervals are a bootstrap's over images, each drawn with all its tokens; every draw sorts
    its own tokens into percentiles.

    Args:
        norms: L2 norms, image by image, [B, T].
        awcds: of each token, NaN where it has none, [B, T].
        scored: activation on features with a CDS, [B, T].
        active: activation on all features, [B, T].
        n_bins: percentile bins; never more than tokens.
        seed: of the bootstrap.
    """
    order = np.argsort(norms, axis=None, kind="stable")
    flat_norms, values, on_scored, on_all = (
        array.ravel()[order] for array in (norms, awcds, scored, active)
    )
    bins = min(n_bins, order.size)
    sizes = np.full(bins, order.size // bins)
    sizes[: order.size % bins] += 1  # the first bins take the remainder
    starts = np.cumsum(sizes) - sizes
    defined = np.isfinite(values)

    def total(column: Reals | NDArray[np.bool_]) -> Reals:
        return np.add.reduceat(column.astype(np.float64), starts)

    low, high = _intervals(order // norms.shape[1], values, bins, len(norms), seed)
    return NormSpectrum(
        percentile=100 * (starts + sizes / 2) / order.size,
        norm=total(flat_norms) / sizes,
        awcds=_ratio(total(np.where(defined, values, 0.0)), total(defined)),
        low=low,
        high=high,
        n_tokens=sizes,
        n_silent=total(on_all == 0).astype(np.int64),
        n_unscored=total(~defined & (on_all > 0)).astype(np.int64),
        scored_share=_ratio(total(on_scored), total(on_all)),
    )


def _intervals(
    image: NDArray[np.int64], values: Reals, bins: int, n_images: int, seed: int
) -> tuple[Reals, Reals]:
    """Return the ends of the bins' intervals, from tokens sorted by norm.

    Tokens are first summed within fine cells of equal count, image by image. A draw adds up the
    images that it drew; its percentiles cut the cells, taken as even inside.
    """
    cells = min(bins * _CELLS_PER_BIN, values.size)
    flat = image * cells + np.arange(values.size) * cells // values.size
    defined = np.isfinite(values)

    def per_cell(column: NDArray[Any]) -> Reals:
        sums = np.bincount(flat, column.astype(np.float64), n_images * cells)
        return np.asarray(sums, dtype=np.float64).reshape(n_images, cells)

    columns = [per_cell(c) for c in (np.ones(values.size), np.where(defined, values, 0.0), defined)]
    means: list[Reals] = []
    for weights in image_weights(n_images, seed, "awcds"):
        for times, sums, counts in zip(*(_running(weights @ c) for c in columns), strict=True):
            ends = np.linspace(0.0, times[-1], bins + 1)
            above, below = (np.diff(np.interp(ends, times, c)) for c in (sums, counts))
            means.append(_ratio(above, below))
    return percentile_ends(np.stack(means))


def _running(rows: Reals) -> Reals:
    return np.pad(rows.cumsum(1), ((0, 0), (1, 0)))


def _ratio(above: Reals, below: Reals) -> Reals:
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 1e-9)
