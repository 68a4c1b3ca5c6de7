"""Where to cut a histogram with two modes: the valley of a kernel density."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, idct

from vitscope.scope.binned import Binned

FLAT_RATIO = 0.8
"""Two peaks count as one mode when the valley between them is above this share of the lower."""

NARROWEST = 2.5
"""Bins: no kernel is narrower. Single bins would be modes, and the cosine series would ring."""

ROUNDING = 12
"""Decimals of a density, as a share of its peak, that are more than the transform's noise."""

Values = NDArray[np.float64]
Bandwidth = Callable[[Binned], Values]
"""A rule: the kernel's standard deviation for each sample, [...]."""


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

    @property
    def dominant(self) -> Mode:
        """The mode with the most mass."""
        return max(self.modes, key=lambda mode: mode.share)


def silverman_bandwidth(binned: Binned) -> Values:
    """Return Silverman's rule of thumb, 0.9·min(sd, IQR/1.34)·n^(-1/5).

    sd alone where the IQR is no wider than a bin.
    """
    spread = binned.std()
    robust = (binned.quantile(0.75) - binned.quantile(0.25)) / 1.34
    narrow = robust * 1.34 <= binned.width
    return 0.9 * np.where(narrow, spread, np.minimum(spread, robust)) * binned.size**-0.2


def density(binned: Binned, bandwidth: Values | float) -> Values:
    """Return the Gaussian kernel density at the bins' centres, [..., n_bins], summing to 1.

    It is reflected at both ends of the axis, so that no mass is lost there: which is what damping
    a cosine series does, exactly.
    """
    wave = np.pi * np.arange(binned.counts.shape[-1]) / (binned.high - binned.low)
    damping = np.exp(-0.5 * (wave * np.asarray(bandwidth)[..., None]) ** 2)
    smooth: Values = np.asarray(idct(dct(binned.counts, axis=-1) * damping, axis=-1))
    peak = np.maximum(smooth.max(-1, keepdims=True), 1e-300)
    smooth = np.maximum(np.round(smooth / peak, ROUNDING), 0.0)
    return smooth / np.maximum(smooth.sum(-1, keepdims=True), 1e-300)


def find_valley(
    binned: Binned, *, min_share: float, bandwidth: Bandwidth = silverman_bandwidth
) -> Valley:
    """Find the valley after the dominant mode (before it, when the dominant mode is the last).

    Args:
        binned: one sample.
        min_share: a mode with less of the mass than this is no mode.
        bandwidth: the rule for the kernel.
    """
    row = Binned(binned.low, binned.high, binned.counts[None])
    return find_valleys(row, min_share=min_share, bandwidth=bandwidth)[0]


def find_valleys(
    binned: Binned, *, min_share: float, bandwidth: Bandwidth = silverman_bandwidth
) -> list[Valley]:
    """Find the valley of each sample, [n_samples, n_bins], by its own bandwidth."""
    if not binned.size.all():
        return [Valley(None, (), 0.0) for _ in binned.counts]
    width = np.maximum(bandwidth(binned), NARROWEST * binned.width)
    curves, centres = density(binned, width), binned.centres
    return [
        _valley(curve, centres, min_share, float(one))
        for curve, one in zip(curves, width, strict=True)
    ]


def _valley(curve: Values, centres: Values, min_share: float, bandwidth: float) -> Valley:
    mass = np.concatenate([[0.0], curve.cumsum()])
    peaks, valleys = _merge_weak(curve, mass, *_extrema(curve), min_share)
    shares = _shares(mass, valleys)
    modes = tuple(
        Mode(float(centres[peak]), share) for peak, share in zip(peaks, shares, strict=True)
    )
    if len(modes) < 2:
        return Valley(None, modes, bandwidth)
    cut = valleys[min(int(np.argmax(shares)), len(valleys) - 1)]
    return Valley(float(centres[cut]), modes, bandwidth)


def _extrema(values: Values) -> tuple[list[int], list[int]]:
    """Return indices of local maxima, and of the lowest point between neighbours."""
    steps = np.diff(np.concatenate([[-np.inf], values, [-np.inf]]))
    moves = np.flatnonzero(steps)
    rising = steps[moves] > 0
    tops = np.flatnonzero(rising[:-1] & ~rising[1:])
    # the middle of a plateau
    peaks = [int(peak) for peak in (moves[tops] + moves[tops + 1] - 1) // 2]
    return peaks, [_lowest(values, left, right) for left, right in pairwise(peaks)]


def _lowest(values: Values, left: int, right: int) -> int:
    window = values[left : right + 1]
    lowest = np.flatnonzero(window == window.min())
    return left + int(lowest[lowest.size // 2])


def _merge_weak(
    values: Values, mass: Values, peaks: list[int], valleys: list[int], min_share: float
) -> tuple[list[int], list[int]]:
    """Merge neighbouring peaks until each is separated by a real valley and has enough mass."""
    peaks, valleys = list(peaks), list(valleys)
    while valleys:
        flatness = [
            values[cut] / min(values[peaks[i]], values[peaks[i + 1]])
            for i, cut in enumerate(valleys)
        ]
        shares = _shares(mass, valleys)
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


def _shares(mass: Values, valleys: list[int]) -> list[float]:
    """Return the mass between valleys, from its running sum [n_bins + 1]."""
    return np.diff(mass[[0, *valleys, mass.size - 1]]).tolist()
