"""Where to cut a histogram with two modes: the valley of a kernel density, or a stated fallback."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

N_BINS = 2048
FLAT_RATIO = 0.8
"""Two peaks count as one mode when the valley between them is above this share of the lower."""

Sample = NDArray[np.float64]


@dataclass(frozen=True)
class Density:
    """A binned Gaussian kernel density.

    Attributes:
        centres: bin centres, [n].
        values: density at the centres, [n]; sums to 1 over bins.
        bandwidth: standard deviation of the kernel, in the units of the sample.
    """

    centres: Sample
    values: Sample
    bandwidth: float


@dataclass(frozen=True)
class Mode:
    """One mode of a density: where it peaks, and its share of the mass between its valleys."""

    peak: float
    share: float


@dataclass(frozen=True)
class Valley:
    """The cut between the dominant mode and the next one.

    Attributes:
        threshold: the density's minimum between the two; None without a second mode.
        modes: the modes found, from low to high.
        bandwidth: of the density they were found on.
    """

    threshold: float | None
    modes: tuple[Mode, ...]
    bandwidth: float


def silverman_bandwidth(sample: Sample) -> float:
    """Return Silverman's rule of thumb, 0.9·min(sd, IQR/1.34)·n^(-1/5); sd alone where IQR is 0."""
    spread = float(np.std(sample))
    low, high = np.percentile(sample, [25, 75])
    robust = float(high - low) / 1.34
    return 0.9 * (min(spread, robust) if robust > 0 else spread) * sample.size**-0.2


def density(sample: Sample, low: float, high: float, bandwidth: float) -> Density:
    """Return the density on [low, high], reflected at both ends so that no mass is lost there."""
    edges = np.linspace(low, high, N_BINS + 1)
    counts = np.histogram(sample, edges)[0].astype(np.float64)
    width = (high - low) / N_BINS
    smooth = gaussian_filter1d(counts, max(bandwidth / width, 1e-6), mode="reflect", truncate=6.0)
    return Density((edges[:-1] + edges[1:]) / 2, smooth / max(smooth.sum(), 1e-300), bandwidth)


def find_valley(
    sample: Sample, low: float, high: float, *, min_share: float, bandwidth: float | None = None
) -> Valley:
    """Find the valley after the dominant mode (before it, when the dominant mode is the last).

    Args:
        sample: values [N]; those outside [low, high] are not looked at.
        low: left end of the axis.
        high: right end of the axis.
        min_share: a mode with less of the mass than this is no mode.
        bandwidth: of the kernel; Silverman's rule by default.
    """
    inside = sample[(sample >= low) & (sample <= high)]
    if inside.size == 0:
        return Valley(None, (), 0.0)
    width = silverman_bandwidth(inside) if bandwidth is None else bandwidth
    curve = density(inside, low, high, max(width, 2 * (high - low) / N_BINS))
    peaks, valleys = _merge_weak(curve.values, *_extrema(curve.values), min_share)
    shares = _shares(curve.values, valleys)
    modes = tuple(
        Mode(float(curve.centres[peak]), float(share))
        for peak, share in zip(peaks, shares, strict=True)
    )
    if len(modes) < 2:
        return Valley(None, modes, curve.bandwidth)
    dominant = int(np.argmax(shares))
    cut = valleys[min(dominant, len(valleys) - 1)]
    return Valley(float(curve.centres[cut]), modes, curve.bandwidth)


def otsu_threshold(sample: Sample, low: float, high: float) -> float:
    """Return the cut that maximises the variance between the two sides (Otsu, 1979)."""
    counts, edges = np.histogram(sample, np.linspace(low, high, N_BINS + 1))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts).astype(np.float64)
    above = counts.sum() - below
    first = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = first / below - (first[-1] - first) / above
        between = np.where((below > 0) & (above > 0), below * above * gap**2, -1.0)
    # a gap without values scores the same at every cut inside it: take the first gap's middle
    best = np.flatnonzero(np.isclose(between, between.max(), rtol=1e-12, atol=0))
    ends = np.flatnonzero(np.diff(best) > 1)
    last = best[ends[0]] if ends.size else best[-1]
    return float((edges[best[0] + 1] + edges[last + 1]) / 2)


def _extrema(values: Sample) -> tuple[list[int], list[int]]:
    """Return indices of local maxima, and of the lowest point between neighbours."""
    steps = np.diff(np.concatenate([[-np.inf], values, [-np.inf]]))
    rising, falling = steps[:-1] > 0, steps[1:] < 0
    peaks: list[int] = []
    start: int | None = None
    for index in range(values.size):
        if rising[index]:
            start = index
        if falling[index] and start is not None:
            peaks.append((start + index) // 2)  # the middle of a plateau
            start = None
    return peaks, [_lowest(values, left, right) for left, right in pairwise(peaks)]


def _lowest(values: Sample, left: int, right: int) -> int:
    window = values[left : right + 1]
    lowest = np.flatnonzero(window == window.min())
    return left + int(lowest[lowest.size // 2])


def _merge_weak(
    values: Sample, peaks: list[int], valleys: list[int], min_share: float
) -> tuple[list[int], list[int]]:
    """Merge neighbouring peaks until each is separated by a real valley and has enough mass."""
    peaks, valleys = list(peaks), list(valleys)
    while valleys:
        flatness = [
            values[cut] / min(values[peaks[i]], values[peaks[i + 1]])
            for i, cut in enumerate(valleys)
        ]
        shares = _shares(values, valleys)
        small = [i for i, share in enumerate(shares) if share < min_share]
        if max(flatness) > FLAT_RATIO:
            cut = int(np.argmax(flatness))
        elif small:
            mode = min(small, key=lambda i: shares[i])
            sides = [i for i in (mode - 1, mode) if 0 <= i < len(valleys)]
            cut = max(sides, key=lambda i: values[valleys[i]])
        else:
            break
        weaker = cut if values[peaks[cut]] < values[peaks[cut + 1]] else cut + 1
        del valleys[cut], peaks[weaker]
    return peaks, valleys


def _shares(values: Sample, valleys: list[int]) -> list[float]:
    ends = [0, *valleys, values.size]
    return [float(values[start:end].sum()) for start, end in pairwise(ends)]
