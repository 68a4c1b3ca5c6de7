"""Where the two sides of a histogram differ most: Otsu's threshold."""

import numpy as np
from numpy.typing import NDArray

from vitscope.scope.binned import Binned


def otsu_threshold(binned: Binned) -> NDArray[np.float64]:
    """Return the cut that maximises the variance between the two sides (Otsu, 1979).

    It needs no second mode, and cuts a single one in the middle.

    Args:
        binned: one sample, or many.

    Returns:
        The threshold of each sample, [...].
    """
    rows = binned.counts.reshape(-1, binned.counts.shape[-1])
    below = rows.cumsum(1)
    above = below[:, -1:] - below
    first = (rows * binned.centres).cumsum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = first / below - (first[:, -1:] - first) / above
        between = np.where((below > 0) & (above > 0), below * above * gap**2, -1.0)
    # of equally good cuts the first; every cut within a gap without values is one: its middle
    best = np.isclose(between, between.max(1, keepdims=True), rtol=1e-12, atol=0)
    start = best.argmax(1)
    after = below > np.take_along_axis(below, start[:, None], 1)
    stop = np.where(after.any(1), after.argmax(1), below.shape[1])
    edges = binned.edges
    middle = (edges[start + 1] + edges[stop]) / 2
    # one value alone is on no side: it is not above
    last = below.shape[1] - (rows[:, ::-1] > 0).argmax(1)
    alone = between.max(1) < 0
    return np.where(alone, edges[last], middle).reshape(binned.counts.shape[:-1])
