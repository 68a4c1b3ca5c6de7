"""The histogram of token norms in bins wide enough for the few tokens of one feature."""

import numpy as np
from numpy.typing import NDArray

from vitscope.scope.outliers import NormHistogram

WIDEST_COUNT = 40
"""Bins drawn: a feature fires on some dozens of tokens."""


def coarse_bins(norms: NormHistogram) -> NormHistogram:
    """Return the histogram with neighbouring bins joined, at most ``WIDEST_COUNT`` of them."""
    n_bins = len(norms.counts)
    step = -(-n_bins // WIDEST_COUNT)
    starts = np.arange(0, n_bins, step)
    edges = np.append(norms.edges[starts], norms.edges[-1])
    return NormHistogram(edges, np.add.reduceat(norms.counts, starts))


def shares_of(norms: NDArray[np.float64], edges: NDArray[np.float64]) -> list[float]:
    """Return the share of ``norms`` in each bin; what lies beyond counts in the outermost ones."""
    if not norms.size:
        return [0.0] * (len(edges) - 1)
    logs = np.clip(np.log10(np.maximum(norms, 10 ** edges[0])), edges[0], edges[-1])
    counts, _ = np.histogram(logs, edges)
    return [float(share) for share in counts / norms.size]
