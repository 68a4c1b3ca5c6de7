"""How firm γ is: tests of the CDS histogram, a bootstrap over features, other thresholds."""

import numpy as np
from numpy.typing import NDArray

from vitscope.scope.binned import Binned
from vitscope.scope.bootstrap import interval_of, resampled
from vitscope.scope.dip import dip_test
from vitscope.scope.evidence import Alternative, Evidence, alternative, share_changed
from vitscope.scope.mixture import fit_mixture
from vitscope.scope.multimodality import unimodality_p_value
from vitscope.scope.otsu import otsu_threshold
from vitscope.scope.partition import Partition, bin_cds, cds_valleys


def gamma_evidence(
    cds: NDArray[np.float64], partition: Partition, *, seed: int, paper: float | None = None
) -> Evidence:
    """Test, bootstrap and compare the γ of ``partition``.

    The bootstrap draws features; that each score is itself a mean over a few images is not in it.
    It repeats the search for a valley, kernel width included, or Otsu's where that stood in.

    Args:
        cds: score of every feature, NaN where it has none, [m].
        partition: of these features.
        seed: of the bootstraps.
        paper: γ that the paper gives for this model and block.
    """
    scored, binned = cds[np.isfinite(cds)], bin_cds(cds)
    method = "Otsu" if partition.source == "otsu" else "valley"
    valleys, cuts = [], []
    for sample in resampled(Binned(0.0, 1.0, binned.counts[0]), seed, "gamma"):
        found = [valley.threshold for valley in cds_valleys(sample)]
        valleys.append(np.asarray(found, dtype=np.float64))
        cuts.append(otsu_threshold(sample) if method == "Otsu" else valleys[-1])
    interval, valley_found = interval_of(np.concatenate(cuts)), interval_of(np.concatenate(valleys))
    dip = dip_test(scored)
    return Evidence(
        dip=dip.statistic,
        dip_p=dip.p_value,
        silverman_p=unimodality_p_value(scored, 0.0, 1.0, seed=seed),
        n_effective=float(scored.size),
        interval=interval,
        method=method,
        valley_found=valley_found.found,
        changed=share_changed(interval, partition.gamma, scored),
        alternatives=_alternatives(scored, binned, partition, paper),
    )


def _alternatives(
    scored: NDArray[np.float64], binned: Binned, partition: Partition, paper: float | None
) -> tuple[Alternative, ...]:
    one = Binned(0.0, 1.0, binned.counts[0])
    thresholds = {
        "valley": cds_valleys(binned)[0].threshold,
        "otsu": float(otsu_threshold(one)),
        "mixture": fit_mixture(one, partition.bandwidth).threshold,
        "paper": paper,
    }
    return tuple(
        alternative(name, threshold, scored)
        for name, threshold in thresholds.items()
        if threshold is not None
    )
