"""Splitting a dictionary in low-CDS and high-CDS features (protocol, section 6)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vitscope.axes import Reals
from vitscope.errors import ConfigError
from vitscope.scope.bootstrap import resampled
from vitscope.scope.modes import Binned, bin_sample
from vitscope.scope.settings import UnscoredRule
from vitscope.scope.thresholds import (
    ThresholdEvidence,
    Valley,
    find_valleys,
    otsu_threshold,
    threshold_evidence,
)

MIN_MODE_SHARE = 0.05
"""A mode of the CDS histogram holds at least this share of the scored features."""

MAX_BANDWIDTH = 0.03
"""Widest kernel on the CDS axis: wider ones blur modes that small dictionaries do show."""

GammaSource = Literal["given", "valley", "otsu"]


@dataclass(frozen=True)
class Partition:
    """A dictionary in two groups, and how γ was found.

    Attributes:
        gamma: γ; a feature is low-CDS when its CDS ≤ γ.
        source: by hand, the histogram's valley, or Otsu's threshold for want of a second mode.
        mode_peaks: CDS of each mode found.
        bandwidth: of the kernel density that showed them.
        message: how γ was found, in a sentence.
        group: ``low``, ``high`` or ``unscored`` for every feature, [m].
    """

    gamma: float
    source: GammaSource
    mode_peaks: tuple[float, ...]
    bandwidth: float
    message: str
    group: NDArray[np.str_]

    @property
    def low(self) -> NDArray[np.int64]:
        """Features with CDS ≤ γ, ascending."""
        return np.flatnonzero(self.group == "low")

    @property
    def high(self) -> NDArray[np.int64]:
        """Features with CDS > γ, ascending."""
        return np.flatnonzero(self.group == "high")

    @property
    def unscored(self) -> NDArray[np.int64]:
        """Features without a CDS, ascending."""
        return np.flatnonzero(self.group == "unscored")


def group_of(cds: Reals, gamma: float, unscored: UnscoredRule = "separate") -> NDArray[np.str_]:
    """Return ``low`` (CDS ≤ γ), ``high`` (CDS > γ) or ``unscored`` for every score, [m]."""
    without = "low" if unscored == "low" else "unscored"
    return np.select([cds > gamma, cds <= gamma], ["high", "low"], without)


def partition_features(
    cds: Reals, *, gamma: float | None = None, unscored: UnscoredRule = "separate"
) -> Partition:
    """Split features at γ, found in the CDS histogram unless given.

    Args:
        cds: score of every feature, NaN where it has none, [m].
        gamma: γ by hand.
        unscored: ``low`` puts features without a CDS in the low group, as the paper's Table 4 must.

    Raises:
        ConfigError: no feature has a CDS, and so there is nothing to split.
    """
    if not np.isfinite(cds).any():
        raise ConfigError(
            "no feature has a CDS: none fired on any exemplar pair; check that the SAE and the "
            "backbone belong together (evaluate), or score more images"
        )
    binned = bin_cds(cds)
    valley = cds_valleys(binned)[0]
    peaks = tuple(mode.peak for mode in valley.modes)
    chosen, source, message = _choose(gamma, valley, binned)
    return Partition(
        gamma=chosen,
        source=source,
        mode_peaks=peaks,
        bandwidth=valley.bandwidth,
        message=message,
        group=group_of(cds, chosen, unscored),
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


def gamma_evidence(
    cds: Reals, partition: Partition, *, seed: int, paper: float | None = None
) -> ThresholdEvidence:
    """Test, bootstrap and compare the γ of ``partition``.

    The bootstrap draws features; that each score is itself a mean over a few images is not in it.
    It repeats the search for a valley, kernel width included, or Otsu's where that stood in.

    Args:
        cds: score of every feature, NaN where it has none, [m].
        partition: of these features.
        seed: of the bootstraps.
        paper: γ that the paper gives for this model and block.
    """
    scored = cds[np.isfinite(cds)]
    binned = bin_sample(scored, 0.0, 1.0)
    return threshold_evidence(
        scored,
        partition.gamma,
        binned,
        resampled(binned, seed, "gamma"),
        cds_valleys,
        stand_in=("Otsu", otsu_threshold) if partition.source == "otsu" else None,
        narrowest=partition.bandwidth,
        others={"paper": paper},
        n_effective=float(scored.size),
        seed=seed,
    )


def bin_cds(cds: Reals) -> Binned:
    """Count the scores [m] that are defined, as one sample [1, n_bins]."""
    binned = bin_sample(cds[np.isfinite(cds)], 0.0, 1.0)
    return Binned(binned.low, binned.high, binned.counts[None])


def cds_valleys(binned: Binned) -> list[Valley]:
    """Find the valley of each sample of scores, [n_samples, n_bins]."""
    return find_valleys(binned, min_share=MIN_MODE_SHARE, bandwidth=cds_bandwidth)


def cds_bandwidth(binned: Binned) -> Reals:
    """Return 0.9·sd·n^(-1/5), at most ``MAX_BANDWIDTH``.

    Silverman's rule without its interquartile range, which the spike of local features at 0 makes
    meaninglessly small.
    """
    return np.minimum(0.9 * binned.std() * binned.size**-0.2, MAX_BANDWIDTH)
