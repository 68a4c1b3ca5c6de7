"""How firm τ is: tests of the norm histogram, a bootstrap over images, other thresholds."""

import numpy as np
from numpy.typing import NDArray

from vitscope.scope.binned import Binned
from vitscope.scope.bootstrap import effective_size, interval_of, resampled_images
from vitscope.scope.dip import dip_test
from vitscope.scope.evidence import Alternative, Evidence, alternative, share_changed
from vitscope.scope.mixture import fit_mixture
from vitscope.scope.multimodality import unimodality_p_value
from vitscope.scope.otsu import otsu_threshold
from vitscope.scope.outliers import (
    SMALLEST_NORM,
    OutlierSettings,
    OutlierThreshold,
    bin_norms,
    norm_valleys,
    whole_set,
)
from vitscope.scope.valley import silverman_bandwidth


def tau_evidence(
    norms: NDArray[np.float64],
    threshold: OutlierThreshold,
    settings: OutlierSettings,
    *,
    seed: int,
    known: float | None = None,
) -> Evidence:
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
    per_image, flat = bin_norms(norms), norms.ravel()
    logs = np.log10(np.maximum(flat, SMALLEST_NORM))
    method = "percentile" if threshold.source == "percentile" else "valley"
    valleys, cuts = [], []
    for sample in resampled_images(per_image, seed, "tau"):
        found = [valley.threshold for valley in norm_valleys(sample)]
        valleys.append(np.asarray(found, dtype=np.float64))
        stand_in = method == "percentile"
        cuts.append(sample.quantile(settings.tau_percentile / 100) if stand_in else valleys[-1])
    interval = interval_of(10 ** np.concatenate(cuts))
    n_effective = effective_size(per_image)
    dip = dip_test(logs, n_effective=n_effective)
    return Evidence(
        dip=dip.statistic,
        dip_p=dip.p_value,
        silverman_p=unimodality_p_value(
            logs, per_image.low, per_image.high, seed=seed, n_effective=n_effective
        ),
        n_effective=n_effective,
        interval=interval,
        method=method,
        valley_found=interval_of(np.concatenate(valleys)).found,
        changed=share_changed(interval, threshold.tau, flat),
        alternatives=_alternatives(flat, whole_set(per_image), settings, known),
    )


def _alternatives(
    norms: NDArray[np.float64], binned: Binned, settings: OutlierSettings, known: float | None
) -> tuple[Alternative, ...]:
    one = Binned(binned.low, binned.high, binned.counts[0])
    logs = {
        "valley": norm_valleys(binned)[0].threshold,
        "otsu": float(otsu_threshold(one)),
        "mixture": fit_mixture(one, float(silverman_bandwidth(one))).threshold,
    }
    thresholds = {name: 10**log for name, log in logs.items() if log is not None}
    thresholds["percentile"] = float(np.percentile(norms, settings.tau_percentile))
    if known is not None:
        thresholds["paper"] = known
    return tuple(alternative(name, value, norms) for name, value in thresholds.items())
