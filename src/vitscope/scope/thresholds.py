"""Where to cut a histogram in two, and how firm the cut is: what τ and γ are found by.

A cut is the valley between two modes of a kernel density. Where there is no second mode something
stands in (Otsu's threshold, a percentile); a mixture of two normal components is a second opinion.
Evidence holds the tests of a single mode, a bootstrap interval, and the other cuts.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vitscope.axes import Reals
from vitscope.intervals import LEVEL
from vitscope.scope.bootstrap import Interval, interval_of
from vitscope.scope.modes import (
    Binned,
    density,
    dip_test,
    silverman_bandwidth,
    unimodality_p_value,
)

FLAT_RATIO = 0.8
"""Two peaks count as one mode when the valley between them is above this share of the lower."""

NARROWEST = 2.5
"""Bins: no kernel is narrower. Single bins would be modes, and the cosine series would ring."""

MAX_EM_STEPS = 2000
EM_SETTLED = 1e-10
"""EM ends when the mean log-likelihood of a value rises by less."""

EM_START_SHARES = (0.5, 0.1, 0.02)
"""Shares of the values above the cuts that EM starts from: the upper component may be rare."""

EM_BLUR = 0.01
"""Share that EM starts with on the other side of the cut: no component is without values."""

EM_LEAST_SHARE = 1e-12
"""Share in a value that no component falls below: an empty one has no mean."""

WIDE_INTERVAL = 0.2
"""An interval is wide when within it the upper group's size changes by more than this share."""

FIRM_SHARE = 0.9
"""A valley found in fewer of the draws than this is not a firm one."""

_Bandwidth = Callable[[Binned], Reals]
_Parts = tuple[Reals, Reals, Reals]


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


def find_valleys(
    binned: Binned, *, min_share: float, bandwidth: _Bandwidth = silverman_bandwidth
) -> list[Valley]:
    """Find the valley of each sample after its dominant mode (before it, where that is the last).

    Args:
        binned: samples, [n_samples, n_bins].
        min_share: a mode with less of the mass than this is no mode.
        bandwidth: the rule for the kernel of each.
    """
    if not binned.size.all():
        return [Valley(None, (), 0.0) for _ in binned.counts]
    width = np.maximum(bandwidth(binned), NARROWEST * binned.width)
    curves, centres = density(binned, width), binned.centres
    return [
        _valley(curve, centres, min_share, float(one))
        for curve, one in zip(curves, width, strict=True)
    ]


def _valley(curve: Reals, centres: Reals, min_share: float, bandwidth: float) -> Valley:
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


def _extrema(values: Reals) -> tuple[list[int], list[int]]:
    """Return indices of local maxima, and of the lowest point between neighbours."""
    steps = np.diff(np.concatenate([[-np.inf], values, [-np.inf]]))
    moves = np.flatnonzero(steps)
    rising = steps[moves] > 0
    tops = np.flatnonzero(rising[:-1] & ~rising[1:])
    # the middle of a plateau
    peaks = [int(peak) for peak in (moves[tops] + moves[tops + 1] - 1) // 2]
    return peaks, [_lowest(values, left, right) for left, right in pairwise(peaks)]


def _lowest(values: Reals, left: int, right: int) -> int:
    window = values[left : right + 1]
    lowest = np.flatnonzero(window == window.min())
    return left + int(lowest[lowest.size // 2])


def _merge_weak(
    values: Reals, mass: Reals, peaks: list[int], valleys: list[int], min_share: float
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


def _shares(mass: Reals, valleys: list[int]) -> list[float]:
    """Return the mass between valleys, from its running sum [n_bins + 1]."""
    return np.diff(mass[[0, *valleys, mass.size - 1]]).tolist()


def otsu_threshold(binned: Binned) -> Reals:
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


@dataclass(frozen=True)
class NormalMixture:
    """Two normal components, the lower first.

    Attributes:
        means: of the components.
        spreads: their standard deviations.
        weights: their shares; they add up to 1.
        log_likelihood: mean over values, up to a constant.
        threshold: the value between the means where both are equally likely; NaN where one is
            the likelier all the way.
    """

    means: tuple[float, float]
    spreads: tuple[float, float]
    weights: tuple[float, float]
    log_likelihood: float
    threshold: float


def fit_mixture(binned: Binned, narrowest: float) -> NormalMixture:
    """Fit two normal components to one sample by EM, and return the likeliest of three fits.

    Args:
        binned: one sample of at least one value.
        narrowest: least standard deviation of a component, in the units of the axis.
    """
    used = binned.counts > 0
    x, weight = binned.centres[used], binned.counts[used] / binned.counts.sum()
    floor = max(narrowest, binned.width)
    starts = [binned.quantile(1 - share) for share in EM_START_SHARES]
    fits = [_climb(x, weight, float(start), floor) for start in starts]
    # of equally likely fits the first
    return max(fits, key=lambda fit: round(fit.log_likelihood, 9))


def _climb(x: Reals, weight: Reals, cut: float, floor: float) -> NormalMixture:
    """Climb from the two sides of ``cut`` to the nearest maximum of the likelihood."""
    upper = np.where(x > cut, 1 - EM_BLUR, EM_BLUR)
    parts = _maximise(x, weight, np.stack([1 - upper, upper]), floor)
    shares, likelihood = _expect(x, weight, parts)
    for _ in range(MAX_EM_STEPS):
        before, parts = likelihood, _maximise(x, weight, shares, floor)
        shares, likelihood = _expect(x, weight, parts)
        if likelihood - before < EM_SETTLED:
            break
    order = np.argsort(parts[0], kind="stable")
    means, spreads, mass = (part[order] for part in parts)
    mass = mass / mass.sum()
    return NormalMixture(
        means=(float(means[0]), float(means[1])),
        spreads=(float(spreads[0]), float(spreads[1])),
        weights=(float(mass[0]), float(mass[1])),
        log_likelihood=likelihood,
        threshold=_crossing(means, spreads, mass),
    )


def _maximise(x: Reals, weight: Reals, shares: Reals, floor: float) -> _Parts:
    """Return means, spreads and weights, [2] each, from each value's shares [2, N]."""
    mass = shares @ weight
    means = (shares * x) @ weight / mass
    squares = (shares * (x - means[:, None]) ** 2) @ weight / mass
    return means, np.sqrt(np.maximum(squares, floor**2)), mass


def _expect(x: Reals, weight: Reals, parts: _Parts) -> tuple[Reals, float]:
    """Return the components' shares in each value, [2, N], and the mean log-likelihood."""
    means, spreads, mass = (part[:, None] for part in parts)
    logs = np.log(mass / spreads) - 0.5 * ((x - means) / spreads) ** 2
    total = np.logaddexp(logs[0], logs[1])
    return np.maximum(np.exp(logs - total), EM_LEAST_SHARE), float(total @ weight)


def _crossing(means: Reals, spreads: Reals, weights: Reals) -> float:
    """Return where the weighted densities are equal between the means: a root of a quadratic."""
    precision = 1 / spreads**2
    square = 0.5 * (precision[1] - precision[0])
    linear = precision[0] * means[0] - precision[1] * means[1]
    constant = 0.5 * (precision[1] * means[1] ** 2 - precision[0] * means[0] ** 2)
    constant += np.log(weights[0] / spreads[0]) - np.log(weights[1] / spreads[1])
    roots = np.roots([square, linear, constant])
    inside = [
        float(root.real)
        for root in roots
        if abs(root.imag) < 1e-12 and means[0] < root.real < means[1]
    ]
    return inside[0] if len(inside) == 1 else float("nan")


@dataclass(frozen=True)
class Alternative:
    """Another threshold on the same values, and the sizes of the two groups it would make.

    Attributes:
        name: ``valley``, ``otsu``, ``mixture``, ``percentile`` or ``paper``.
        threshold: NaN where the method finds none.
        n_below: values at or below it.
        n_above: values above it.
    """

    name: str
    threshold: float
    n_below: int
    n_above: int


@dataclass(frozen=True)
class ThresholdEvidence:
    """What else a histogram says of its threshold.

    Attributes:
        dip: the dip statistic.
        dip_p: p-value of "one mode" by the dip test.
        silverman_p: the same by Silverman's test of the critical bandwidth.
        n_effective: independent values that the dip test was told of.
        interval: of the threshold, by the method named in ``method``.
        method: what was bootstrapped: ``valley``, or what stands in for it.
        valley_found: share of the bootstrap draws in which there was a valley.
        changed: by which share of its size the group above the threshold shrinks from one end of
            the interval to the other; NaN where there is none.
        alternatives: other thresholds.
    """

    dip: float
    dip_p: float
    silverman_p: float
    n_effective: float
    interval: Interval
    method: str
    valley_found: float
    changed: float
    alternatives: tuple[Alternative, ...]

    def describe(self, symbol: str, resampled: str, upper: str) -> str:
        """Return a sentence or two on how firm the threshold is.

        Args:
            symbol: of the threshold.
            resampled: what the bootstrap drew, in the plural.
            upper: what the values above it are called, in the plural.
        """
        draws, found = self.interval, f"{100 * self.valley_found:.3g} %"
        if not np.isfinite(draws.low):
            return f"No bootstrap draw of the {resampled} has a valley, so {symbol} has no interval"
        text = (
            f"{100 * LEVEL:g} % of {draws.n_draws:,} bootstrap draws of the {resampled} put "
            f"{symbol} ({self.method}) between {draws.low:.4g} and {draws.high:.4g}"
        )
        if self.method != "valley":
            text += f"; a valley appears in {found} of them"
        elif self.valley_found < FIRM_SHARE:
            text += f", but only {found} of them have a valley at all: it is not firm"
        else:
            text += f"; {found} of them have a valley"
        if self.changed > WIDE_INTERVAL:
            text += (
                f". The interval is wide: from its one end to the other the number of {upper} "
                f"changes by {100 * self.changed:.0f} %"
            )
        return text


def threshold_evidence(
    values: Reals,
    threshold: float,
    binned: Binned,
    samples: Iterable[Binned],
    valleys_of: Callable[[Binned], list[Valley]],
    *,
    stand_in: tuple[str, Callable[[Binned], Reals]] | None,
    narrowest: float,
    others: Mapping[str, float | None],
    n_effective: float,
    seed: int,
    least_logged: float | None = None,
) -> ThresholdEvidence:
    """Test, bootstrap and compare a threshold on finite ``values`` [N].

    Args:
        values: what is cut.
        threshold: the cut that was chosen.
        binned: the values (or their log10) as one sample, [n_bins].
        samples: bootstrap resamples of it.
        valleys_of: finds the valley of each of many samples.
        stand_in: name and estimator of what stood in for the valley; None where a valley is meant.
        narrowest: least standard deviation of a component of the mixture.
        others: further thresholds by name.
        n_effective: independent values that know as much, where the values depend on one another.
        seed: of Silverman's bootstrap.
        least_logged: the histogram's axis is log10, and smaller values count as this.
    """
    logged = least_logged is not None
    on_axis = np.log10(np.maximum(values, least_logged)) if logged else values
    found: list[Reals] = []
    cuts: list[Reals] = []
    for sample in samples:
        found.append(np.asarray([v.threshold for v in valleys_of(sample)], dtype=np.float64))
        cuts.append(found[-1] if stand_in is None else stand_in[1](sample))
    every_cut = np.concatenate(cuts)
    interval = interval_of(10**every_cut if logged else every_cut)
    dip = dip_test(on_axis, n_effective=n_effective)
    whole = Binned(binned.low, binned.high, binned.counts[None])
    on_histogram = {
        "valley": valleys_of(whole)[0].threshold,
        "otsu": float(otsu_threshold(binned)),
        "mixture": fit_mixture(binned, narrowest).threshold,
    }
    alternatives = {
        name: 10**cut if logged and cut is not None else cut for name, cut in on_histogram.items()
    } | dict(others)
    return ThresholdEvidence(
        dip=dip.statistic,
        dip_p=dip.p_value,
        silverman_p=unimodality_p_value(
            on_axis, binned.low, binned.high, seed=seed, n_effective=n_effective
        ),
        n_effective=n_effective,
        interval=interval,
        method="valley" if stand_in is None else stand_in[0],
        valley_found=interval_of(np.concatenate(found)).found,
        changed=_share_changed(interval, threshold, values),
        alternatives=tuple(
            _alternative(name, cut, values) for name, cut in alternatives.items() if cut is not None
        ),
    )


def _alternative(name: str, threshold: float, values: Reals) -> Alternative:
    above = int((values > threshold).sum())
    below = values.size - above if np.isfinite(threshold) else 0
    return Alternative(name, float(threshold), below, above)


def _share_changed(interval: Interval, threshold: float, values: Reals) -> float:
    """Return by which share of itself the group above changes from end to end of an interval."""
    above = float((values > threshold).sum())
    if not np.isfinite(interval.low) or above == 0:
        return float("nan")
    return float(((values > interval.low) & (values <= interval.high)).sum()) / above
