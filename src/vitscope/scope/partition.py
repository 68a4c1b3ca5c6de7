"""Splitting a dictionary in low-CDS and high-CDS features (protocol, section 6)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vitscope.errors import ConfigError
from vitscope.scope.binned import Binned, bin_sample
from vitscope.scope.otsu import otsu_threshold
from vitscope.scope.valley import Valley, find_valleys

MIN_MODE_SHARE = 0.05
"""A mode of the CDS histogram holds at least this share of the scored features."""

MAX_BANDWIDTH = 0.03
"""Widest kernel on the CDS axis: wider ones blur modes that small dictionaries do show."""

GammaSource = Literal["given", "valley", "otsu"]


@dataclass(frozen=True)
class Partition:
    """Feature indices by group, ascending, and how γ was found.

    Attributes:
        gamma: γ; a feature is low-CDS when its CDS ≤ γ.
        source: by hand, the histogram's valley, or Otsu's threshold for want of a second mode.
        mode_peaks: CDS of each mode found.
        bandwidth: of the kernel density that showed them.
        message: how γ was found, in a sentence.
        low: features with CDS ≤ γ.
        high: features with CDS > γ.
        unscored: features without a CDS.
    """

    gamma: float
    source: GammaSource
    mode_peaks: tuple[float, ...]
    bandwidth: float
    message: str
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    unscored: NDArray[np.int64]

    def labels(self, n_features: int) -> list[str]:
        """Return ``low``, ``high`` or ``unscored`` for every feature."""
        group = np.full(n_features, "unscored", dtype=object)
        group[self.low], group[self.high] = "low", "high"
        return [str(name) for name in group]


def partition_features(
    cds: NDArray[np.float64],
    *,
    gamma: float | None = None,
    unscored: Literal["separate", "low"] = "separate",
) -> Partition:
    """Split features at γ, found in the CDS histogram unless given.

    Args:
        cds: score of every feature, NaN where it has none, [m].
        gamma: γ by hand.
        unscored: ``low`` puts features without a CDS in the low group, as the paper's Table 4 must.

    Raises:
        ConfigError: no feature has a CDS, and so there is nothing to split.
    """
    missing = ~np.isfinite(cds)
    if missing.all():
        raise ConfigError(
            "no feature has a CDS: none fired on any exemplar pair; check that the SAE and the "
            "backbone belong together (evaluate), or score more images"
        )
    binned = bin_cds(cds)
    valley = cds_valleys(binned)[0]
    peaks = tuple(mode.peak for mode in valley.modes)
    chosen, source, message = _choose(gamma, valley, binned)
    low = (cds <= chosen) | (missing if unscored == "low" else False)
    return Partition(
        gamma=chosen,
        source=source,
        mode_peaks=peaks,
        bandwidth=valley.bandwidth,
        message=message,
        low=np.flatnonzero(low),
        high=np.flatnonzero(cds > chosen),
        unscored=np.flatnonzero(missing & ~low),
    )


def _choose(gamma: float | None, valley: Valley, binned: Binned) -> tuple[float, GammaSource, str]:
    if gamma is not None:
        return gamma, "given", f"γ = {gamma:g} was given"
    if valley.threshold is not None:
        cut = valley.threshold
        below = max(mode.peak for mode in valley.modes if mode.peak < cut)
        above = min(mode.peak for mode in valley.modes if mode.peak > cut)
        return cut, "valley", f"γ = {cut:.3f} is the valley between CDS {below:.3f} and {above:.3f}"
    cut = float(otsu_threshold(binned)[0])
    message = (
        f"the CDS histogram has no second mode: γ = {cut:.3f} is Otsu's threshold, which cuts a "
        "single mode too, and the two groups are a convention"
    )
    return cut, "otsu", message


def bin_cds(cds: NDArray[np.float64]) -> Binned:
    """Count the scores [m] that are defined, as one sample [1, n_bins]."""
    binned = bin_sample(cds[np.isfinite(cds)], 0.0, 1.0)
    return Binned(binned.low, binned.high, binned.counts[None])


def cds_valleys(binned: Binned) -> list[Valley]:
    """Find the valley of each sample of scores, [n_samples, n_bins]."""
    return find_valleys(binned, min_share=MIN_MODE_SHARE, bandwidth=cds_bandwidth)


def cds_bandwidth(binned: Binned) -> NDArray[np.float64]:
    """Return 0.9·sd·n^(-1/5), at most ``MAX_BANDWIDTH``.

    Silverman's rule without its interquartile range, which the spike of local features at 0 makes
    meaninglessly small.
    """
    return np.minimum(0.9 * binned.std() * binned.size**-0.2, MAX_BANDWIDTH)
