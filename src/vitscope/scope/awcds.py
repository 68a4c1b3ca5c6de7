"""Activation-weighted CDS of tokens, and its course over the norm spectrum (paper, Figure 7)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from vitscope.settings import Settings


class AwcdsSettings(Settings):
    """awCDS over the norm spectrum."""

    images: int = Field(default=1000, ge=1)
    """Images whose patch tokens are sorted by norm."""

    bins: int = Field(default=50, ge=2)
    """Percentile bins of equal token count."""


@dataclass(frozen=True)
class NormSpectrum:
    """Mean awCDS in percentile bins of the patch-token norm; arrays [bins].

    Attributes:
        percentile: middle of each bin, 0 to 100.
        norm: mean norm of its tokens.
        awcds: mean awCDS of its tokens that have one; NaN where none has.
        error: standard error of that mean over tokens.
        n_tokens: tokens in the bin.
        n_undefined: tokens without an active feature that has a CDS.
    """

    percentile: NDArray[np.float64]
    norm: NDArray[np.float64]
    awcds: NDArray[np.float64]
    error: NDArray[np.float64]
    n_tokens: NDArray[np.int64]
    n_undefined: NDArray[np.int64]


def token_awcds(codes: Float[Tensor, "N m"], cds: Float[Tensor, "m"]) -> Float[Tensor, "N"]:
    """Return Σ a·CDS / Σ a over each token's active features with a CDS; NaN without any."""
    defined = cds.isfinite()
    weights = codes.double() * defined
    total = weights.sum(1)
    weighted = weights @ cds.double().nan_to_num(0.0)
    return weighted / total.where(total > 0, float("nan"))


def norm_spectrum(
    norms: NDArray[np.float64], awcds: NDArray[np.float64], n_bins: int
) -> NormSpectrum:
    """Sort tokens by norm and average awCDS in ``n_bins`` bins of equal token count."""
    order = np.argsort(norms, kind="stable")
    chunks = np.array_split(order, min(n_bins, max(norms.size, 1)))
    ends = np.cumsum([0, *(len(chunk) for chunk in chunks)])
    means, errors, undefined = [], [], []
    for chunk in chunks:
        defined = awcds[chunk][np.isfinite(awcds[chunk])]
        means.append(defined.mean() if defined.size else np.nan)
        errors.append(defined.std(ddof=1) / np.sqrt(defined.size) if defined.size > 1 else np.nan)
        undefined.append(len(chunk) - defined.size)
    return NormSpectrum(
        percentile=100 * (ends[:-1] + ends[1:]) / 2 / max(norms.size, 1),
        norm=np.asarray([norms[chunk].mean() for chunk in chunks]),
        awcds=np.asarray(means),
        error=np.asarray(errors),
        n_tokens=np.asarray([len(chunk) for chunk in chunks]),
        n_undefined=np.asarray(undefined),
    )
