"""Whether a prediction is right as often as it is sure of itself."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: equal bins of confidence.

    Attributes:
        edges: of the bins, from 0 to 1, [bins + 1].
        n: predictions in each, [bins].
        confidence: their mean confidence; NaN in an empty bin.
        accuracy: share of them that are right; NaN in an empty bin.
        expected_error: mean over predictions of |accuracy - confidence| of their bin.
    """

    edges: tuple[float, ...]
    n: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    expected_error: float


def reliability(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], *, bins: int = 15
) -> Reliability:
    """Bin predictions by confidence in (0, 1/bins], (1/bins, 2/bins], …

    Args:
        confidence: probability of what was predicted, [N].
        right: whether it was right, [N].
        bins: number of bins.
    """
    edges = np.linspace(0, 1, bins + 1)
    place = (np.searchsorted(edges, confidence, side="left") - 1).clip(0, bins - 1)
    n = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=w, minlength=bins) for w in (confidence, right)]
    mean, share = (np.divide(s, n, out=np.full(bins, np.nan), where=n > 0) for s in sums)
    error = np.abs(sums[1] - sums[0]).sum() / max(len(confidence), 1)
    return Reliability(
        tuple(edges.tolist()),
        tuple(n.tolist()),
        tuple(mean.tolist()),
        tuple(share.tolist()),
        float(error),
    )
