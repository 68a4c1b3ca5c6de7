"""A sample counted in fine equal bins: all that densities, cuts and their bootstraps look at."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N_BINS = 2048
"""Fine enough that a cut falls within 0.05 % of the axis, and that bins cost less than values."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Binned:
    """Counts of one sample, or of many resamples of it, on equal bins of [low, high].

    Attributes:
        low: left end of the axis.
        high: right end of the axis.
        counts: values in each bin, [n_bins] or [..., n_bins].
    """

    low: float
    high: float
    counts: Values

    @property
    def width(self) -> float:
        """Width of a bin."""
        return (self.high - self.low) / self.counts.shape[-1]

    @property
    def edges(self) -> Values:
        """Ends of the bins, [n_bins + 1]."""
        return np.linspace(self.low, self.high, self.counts.shape[-1] + 1)

    @property
    def centres(self) -> Values:
        """Middles of the bins, [n_bins]."""
        return (self.edges[:-1] + self.edges[1:]) / 2

    @property
    def size(self) -> Values:
        """Values in all bins, [...]."""
        return self.counts.sum(-1)

    def mean(self) -> Values:
        """Return the mean of each sample, [...], every value at its bin's centre."""
        return self.counts @ self.centres / self.size

    def std(self) -> Values:
        """Return the standard deviation of each sample, [...]."""
        middle = (self.low + self.high) / 2  # about the middle of the axis: no digits are lost
        square = self.counts @ (self.centres - middle) ** 2 / self.size
        return np.sqrt(np.maximum(square - (self.mean() - middle) ** 2, 0.0))

    def quantile(self, share: float) -> Values:
        """Return the value that ``share`` of each sample lies below, [...].

        Values are taken as evenly spread over their bin.
        """
        rows = self.counts.reshape(-1, self.counts.shape[-1])
        reached = np.concatenate([np.zeros((len(rows), 1)), rows.cumsum(1)], axis=1)
        wanted = share * reached[:, -1]
        bins = np.maximum((reached < wanted[:, None]).sum(1) - 1, 0)
        at = np.arange(len(rows))
        within = (wanted - reached[at, bins]) / np.maximum(rows[at, bins], 1e-300)
        values = self.edges[bins] + np.clip(within, 0.0, 1.0) * self.width
        return values.reshape(self.counts.shape[:-1])


def bin_sample(sample: Values, low: float, high: float) -> Binned:
    """Count ``sample`` [N] in bins of [low, high]; values outside are left out."""
    counts = np.histogram(sample, N_BINS, (low, high))[0]
    return Binned(low, high, counts.astype(np.float64))


def bin_rows(rows: Values, low: float, high: float) -> Binned:
    """Count each row of ``rows`` [B, N] by itself, [B, n_bins]; no value may lie outside."""
    place = (rows - low) * (N_BINS / (high - low))
    bins = np.clip(place.astype(np.int64), 0, N_BINS - 1)
    flat = bins + N_BINS * np.arange(len(rows))[:, None]
    counts = np.bincount(flat.ravel(), minlength=N_BINS * len(rows))
    return Binned(low, high, counts.reshape(len(rows), N_BINS).astype(np.float64))
