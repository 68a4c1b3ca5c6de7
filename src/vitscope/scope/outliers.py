"""Outlier tokens: patch tokens whose norm exceeds τ, and how τ is proposed (protocol, 1)."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vitscope.axes import Reals
from vitscope.errors import BackboneError
from vitscope.scope.bootstrap import effective_size, resampled_images
from vitscope.scope.modes import Binned, bin_rows, silverman_bandwidth
from vitscope.scope.settings import Membership, OutlierSettings
from vitscope.scope.thresholds import ThresholdEvidence, Valley, find_valleys, threshold_evidence

MIN_OUTLIER_SHARE = 0.001
"""A high-norm mode holds at least this share of the patch tokens."""

MIN_OUTLIER_TOKENS = 30
"""… and at least so many of them: a handful of tokens is no mode."""

SMALLEST_NORM = 1e-12
"""Norms below are counted here: zero has no logarithm."""

TauSource = Literal["given", "zoo", "valley", "percentile"]


@dataclass(frozen=True)
class OutlierThreshold:
    """τ and how it came about.

    Attributes:
        tau: the threshold on a patch token's L2 norm.
        source: by hand, the valley of the histogram, or the percentile for want of a second mode.
        share: share of patch tokens above it.
        mode_peaks: norm at each mode of the histogram.
        message: the same in a sentence.
    """

    tau: float
    source: TauSource
    share: float
    mode_peaks: tuple[float, ...]
    message: str


@dataclass(frozen=True)
class NormHistogram:
    """Patch tokens counted by the log of their norm.

    Attributes:
        edges: log10 of the L2 norm at the bins' edges, ascending, [n + 1].
        counts: tokens in each bin, [n].
    """

    edges: Reals
    counts: NDArray[np.int64]


def propose_tau(
    norms: Reals, settings: OutlierSettings, *, known: float | None = None
) -> OutlierThreshold:
    """Propose τ from patch-token norms: the valley between the bulk and the high-norm mode.

    A τ of the settings comes first, then the ``known`` one of the paper's Table 5.

    The histogram's axis is log10 of the norm; without a second mode above the bulk, the stated
    percentile stands in, and the message says so.

    Args:
        norms: L2 norms, image by image, [B, T].
        settings: τ or the percentile.
        known: τ of the paper for this model and block.

    Raises:
        BackboneError: a norm is NaN or infinite, or there is none.
    """
    per_image = bin_norms(norms)
    valley = norm_valleys(whole_set(per_image))[0]
    peaks = tuple(float(10**mode.peak) for mode in valley.modes)
    if settings.tau is not None:
        tau, source = settings.tau, "given"
        message = f"τ = {tau:g} was given"
    elif known is not None:
        tau, source = known, "zoo"
        message = f"τ = {tau:g} is the paper's (Table 5)"
    elif valley.threshold is not None:
        tau, source = float(10**valley.threshold), "valley"
        above = min(peak for peak in peaks if peak > tau)
        below = max(peak for peak in peaks if peak < tau)
        message = f"τ = {tau:.4g} is the valley between norms {below:.3g} and {above:.3g}"
    else:
        tau, source = float(np.percentile(norms, settings.tau_percentile)), "percentile"
        message = (
            f"the norm histogram has no second mode above the bulk: τ = {tau:.4g} is the "
            f"{settings.tau_percentile:g}th percentile, and «outlier» means no more than that"
        )
    return OutlierThreshold(tau, source, float((norms > tau).mean()), peaks, message)


def bin_norms(norms: Reals) -> Binned:
    """Count log10 of the norms [B, T] of each image, [B, n_bins], on an axis that holds all.

    Raises:
        BackboneError: a norm is NaN or infinite, or there is none.
    """
    if norms.size == 0 or not np.isfinite(norms).all():
        raise BackboneError(
            f"{int((~np.isfinite(norms)).sum())} of {norms.size} token norms are NaN or infinite; "
            "check the backbone's weights"
        )
    logs = np.log10(np.maximum(norms, SMALLEST_NORM))
    low, high = float(logs.min()), float(logs.max())
    margin = 0.05 * (high - low) + 1e-6
    return bin_rows(logs, low - margin, high + margin)


def whole_set(per_image: Binned) -> Binned:
    """Return the counts of all images together, as one sample [1, n_bins]."""
    return Binned(per_image.low, per_image.high, per_image.counts.sum(0)[None])


def norm_valleys(binned: Binned) -> list[Valley]:
    """Find the valley of each sample [n_samples, n_bins]; one below the bulk makes no outliers."""
    least = max(MIN_OUTLIER_SHARE, MIN_OUTLIER_TOKENS / float(binned.size.mean()))
    return [
        replace(valley, threshold=None)
        if valley.threshold is not None and valley.threshold < valley.dominant.peak
        else valley
        for valley in find_valleys(binned, min_share=least)
    ]


def tau_evidence(
    norms: Reals,
    threshold: OutlierThreshold,
    settings: OutlierSettings,
    *,
    seed: int,
    known: float | None = None,
) -> ThresholdEvidence:
    """Test, bootstrap and compare ``threshold``.

    Tokens of one image depend on one another: the bootstrap draws images with all their tokens,
    and the tests are told of as many independent tokens as know as much (the design effect).

    Args:
        norms: L2 norms, image by image, [B, T].
        threshold: proposed from these norms.
        settings: of the proposal.
        seed: of the bootstraps.
        known: τ of the paper for this model and block.
    """
    per_image, percentile = bin_norms(norms), settings.tau_percentile
    whole = Binned(per_image.low, per_image.high, per_image.counts.sum(0))
    stands_in = threshold.source == "percentile"
    return threshold_evidence(
        norms.ravel(),
        threshold.tau,
        whole,
        resampled_images(per_image, seed, "tau"),
        norm_valleys,
        stand_in=("percentile", lambda b: b.quantile(percentile / 100)) if stands_in else None,
        narrowest=float(silverman_bandwidth(whole)),
        others={"percentile": float(np.percentile(norms, percentile)), "paper": known},
        n_effective=effective_size(per_image),
        seed=seed,
        least_logged=SMALLEST_NORM,
    )


def outlier_membership(
    first: NDArray[np.bool_], second: NDArray[np.bool_], membership: Membership
) -> NDArray[np.bool_]:
    """Combine what the two views say of the same overlap tokens, bool [Q] each."""
    match membership:
        case "either":
            return first | second
        case "first":
            return first
        case "both":
            return first & second
