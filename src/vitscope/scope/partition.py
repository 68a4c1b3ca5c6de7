"""Splitting a dictionary in low-CDS and high-CDS features (protocol, section 6)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vitscope.errors import ConfigError
from vitscope.scope.multimodality import unimodality_p_value
from vitscope.scope.valley import find_valley, otsu_threshold

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
        otsu: Otsu's threshold, as an alternative.
        p_value: of "one mode" (Silverman's test).
        mode_peaks: CDS of each mode found.
        bandwidth: of the kernel density that showed them.
        low: features with CDS ≤ γ.
        high: features with CDS > γ.
        unscored: features without a CDS.
    """

    gamma: float
    source: GammaSource
    otsu: float
    p_value: float
    mode_peaks: tuple[float, ...]
    bandwidth: float
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
    seed: int = 0,
) -> Partition:
    """Split features at γ, found in the CDS histogram unless given.

    Args:
        cds: score of every feature, NaN where it has none, [m].
        gamma: γ by hand.
        unscored: ``low`` puts features without a CDS in the low group, as the paper's Table 4 must.
        seed: of the multimodality test's bootstrap.

    Raises:
        ConfigError: no feature has a CDS, and so there is nothing to split.
    """
    scored = cds[np.isfinite(cds)]
    if scored.size == 0:
        raise ConfigError(
            "no feature has a CDS: none fired on any exemplar pair; check that the SAE and the "
            "backbone belong together (evaluate), or score more images"
        )
    valley = find_valley(
        scored, 0.0, 1.0, min_share=MIN_MODE_SHARE, bandwidth=cds_bandwidth(scored)
    )
    otsu = otsu_threshold(scored, 0.0, 1.0)
    source: GammaSource = "otsu"
    chosen = otsu
    if gamma is not None:
        source, chosen = "given", gamma
    elif valley.threshold is not None:
        source, chosen = "valley", valley.threshold
    missing = ~np.isfinite(cds)
    low = (cds <= chosen) | (missing if unscored == "low" else False)
    return Partition(
        gamma=chosen,
        source=source,
        otsu=otsu,
        p_value=unimodality_p_value(scored, 0.0, 1.0, seed=seed),
        mode_peaks=tuple(mode.peak for mode in valley.modes),
        bandwidth=valley.bandwidth,
        low=np.flatnonzero(low),
        high=np.flatnonzero(cds > chosen),
        unscored=np.flatnonzero(missing & ~low),
    )


def cds_bandwidth(scored: NDArray[np.float64]) -> float:
    """Return 0.9·sd·n^(-1/5), at most ``MAX_BANDWIDTH``.

    Silverman's rule without its interquartile range, which the spike of local features at 0 makes
    meaninglessly small.
    """
    return min(0.9 * float(scored.std()) * scored.size**-0.2, MAX_BANDWIDTH)
