"""How many modes has a sample? Its histogram and density, and two tests of a single mode.

The dip test: J. A. Hartigan and P. M. Hartigan, "The dip test of unimodality", Annals of Statistics
13, 1985. It knows no bandwidth. Written here since the packaged implementations are under the GPL.

Silverman's test of the critical bandwidth: B. W. Silverman, "Using kernel density estimates to
investigate multimodality", Journal of the Royal Statistical Society B 43, 1981. Conservative: a
small p-value is strong evidence of a second mode, a large one is weak evidence of its absence.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, idct
from scipy.ndimage import gaussian_filter1d

from vitscope.axes import Reals
from vitscope.draws import generator

FINE_BINS = 2048
"""Fine enough that a cut falls within 0.05 % of the axis, and that bins cost less than values."""

DENSITY_DECIMALS = 12
"""Decimals of a density, as a share of its peak, that are more than the transform's noise."""

MAX_DIP_STEPS = 65_536
"""Above so many distinct values F is read at evenly spaced ranks: the dip then errs by at most
half the reciprocal of this number."""

FEWEST_FOR_DIP = 4
"""Three values always have the same dip."""

SILVERMAN_DRAWS = 200
SILVERMAN_BINS = 512
SILVERMAN_BISECTIONS = 14
FEWEST_FOR_SILVERMAN = 10
MAX_SILVERMAN_SAMPLE = 5000
"""A larger sample is thinned evenly over its order statistics: the test needs no more."""


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
    counts: Reals

    @property
    def width(self) -> float:
        """Width of a bin."""
        return (self.high - self.low) / self.counts.shape[-1]

    @property
    def edges(self) -> Reals:
        """Ends of the bins, [n_bins + 1]."""
        return np.linspace(self.low, self.high, self.counts.shape[-1] + 1)

    @property
    def centres(self) -> Reals:
        """Middles of the bins, [n_bins]."""
        return (self.edges[:-1] + self.edges[1:]) / 2

    @property
    def size(self) -> Reals:
        """Reals in all bins, [...]."""
        return self.counts.sum(-1)

    def mean(self) -> Reals:
        """Return the mean of each sample, [...], every value at its bin's centre."""
        return self.counts @ self.centres / self.size

    def std(self) -> Reals:
        """Return the standard deviation of each sample, [...]."""
        middle = (self.low + self.high) / 2  # about the middle of the axis: no digits are lost
        square = self.counts @ (self.centres - middle) ** 2 / self.size
        return np.sqrt(np.maximum(square - (self.mean() - middle) ** 2, 0.0))

    def quantile(self, share: float) -> Reals:
        """Return the value that ``share`` of each sample lies below, [...].

        Reals are taken as evenly spread over their bin.
        """
        rows = self.counts.reshape(-1, self.counts.shape[-1])
        reached = np.concatenate([np.zeros((len(rows), 1)), rows.cumsum(1)], axis=1)
        wanted = share * reached[:, -1]
        bins = np.maximum((reached < wanted[:, None]).sum(1) - 1, 0)
        at = np.arange(len(rows))
        within = (wanted - reached[at, bins]) / np.maximum(rows[at, bins], 1e-300)
        values = self.edges[bins] + np.clip(within, 0.0, 1.0) * self.width
        return values.reshape(self.counts.shape[:-1])


def bin_sample(sample: Reals, low: float, high: float) -> Binned:
    """Count ``sample`` [N] in bins of [low, high]; values outside are left out."""
    counts = np.histogram(sample, FINE_BINS, (low, high))[0]
    return Binned(low, high, counts.astype(np.float64))


def bin_rows(rows: Reals, low: float, high: float) -> Binned:
    """Count each row of ``rows`` [B, N] by itself, [B, n_bins]; no value may lie outside."""
    place = (rows - low) * (FINE_BINS / (high - low))
    bins = np.clip(place.astype(np.int64), 0, FINE_BINS - 1)
    flat = bins + FINE_BINS * np.arange(len(rows))[:, None]
    counts = np.bincount(flat.ravel(), minlength=FINE_BINS * len(rows))
    return Binned(low, high, counts.reshape(len(rows), FINE_BINS).astype(np.float64))


def silverman_bandwidth(binned: Binned) -> Reals:
    """Return Silverman's rule of thumb, 0.9·min(sd, IQR/1.34)·n^(-1/5).

    sd alone where the IQR is no wider than a bin.
    """
    spread = binned.std()
    robust = (binned.quantile(0.75) - binned.quantile(0.25)) / 1.34
    narrow = robust * 1.34 <= binned.width
    return 0.9 * np.where(narrow, spread, np.minimum(spread, robust)) * binned.size**-0.2


def density(binned: Binned, bandwidth: Reals | float) -> Reals:
    """Return the Gaussian kernel density at the bins' centres, [..., n_bins], summing to 1.

    It is reflected at both ends of the axis, so that no mass is lost there: which is what damping
    a cosine series does, exactly.
    """
    wave = np.pi * np.arange(binned.counts.shape[-1]) / (binned.high - binned.low)
    damping = np.exp(-0.5 * (wave * np.asarray(bandwidth)[..., None]) ** 2)
    smooth: Reals = np.asarray(idct(dct(binned.counts, axis=-1) * damping, axis=-1))
    peak = np.maximum(smooth.max(-1, keepdims=True), 1e-300)
    smooth = np.maximum(np.round(smooth / peak, DENSITY_DECIMALS), 0.0)
    return smooth / np.maximum(smooth.sum(-1, keepdims=True), 1e-300)


@dataclass(frozen=True)
class Dip:
    """The dip of a sample.

    The dip is the least distance sup |F - G| between the sample's distribution function F and any G
    that is convex up to some mode and concave after it.

    Attributes:
        statistic: the dip, between 1/(2n) and 1/4; NaN with fewer than 4 values.
        p_value: how often as many values of the uniform distribution, the unimodal one that dips
            most, dip as far; never below ``SMALLEST_DIP_P``. NaN where the statistic is.
    """

    statistic: float
    p_value: float


def dip_test(sample: Reals, *, n_effective: float | None = None) -> Dip:
    """Test ``sample`` [N] for a single mode.

    Args:
        sample: finite values, in any order; ties are allowed and taken as what they are.
        n_effective: the number of independent values that know as much as the sample, where its
            values depend on one another; N by default.
    """
    if sample.size < FEWEST_FOR_DIP:
        return Dip(float("nan"), float("nan"))
    values, counts = np.unique(sample, return_counts=True)
    at = np.cumsum(counts) / sample.size
    before = np.concatenate([[0.0], at[:-1]])
    if values.size > MAX_DIP_STEPS:
        values, before, at = _thinned(values, at)
    statistic = dip_of_steps(values, before, at)
    return Dip(statistic, dip_p_value(statistic, n_effective or sample.size))


def dip_p_value(statistic: float, n: float) -> float:
    """Return the p-value of a dip of ``n`` independent values.

    √n·dip is compared with its simulated quantiles under the uniform distribution, interpolated
    between sample sizes in 1/√n; beyond the largest size √n·dip hardly changes any more.
    """
    sizes = -1 / np.sqrt(DIP_SIZES)
    place = np.interp(-1 / np.sqrt(max(n, FEWEST_FOR_DIP)), sizes, np.arange(sizes.size))
    row = min(int(place), sizes.size - 2)
    quantiles = DIP_QUANTILES[row] + (place - row) * (DIP_QUANTILES[row + 1] - DIP_QUANTILES[row])
    least = 0.5 / np.sqrt(n)  # the dip of evenly spaced values
    scaled = np.concatenate([[min(least, quantiles[0])], quantiles])
    # just below: where several levels share a quantile, the lowest is meant
    observed = statistic * np.sqrt(n) * (1 - 1e-4)
    level = np.interp(observed, scaled, np.concatenate([[0.0], DIP_LEVELS]))
    return max(float(1 - level), SMALLEST_DIP_P)


def dip_of_steps(values: Reals, before: Reals, at: Reals) -> float:
    """Return the dip of a step function.

    The interval that must hold the mode is narrowed from both ends. Within it, the largest gap
    between the convex minorant and the concave majorant of F says where the narrower one lies;
    outside it, F's distance from the two curves is a lower bound of the dip (times two).

    Args:
        values: where the steps are, ascending, [n].
        before: the function's value before each step, [n].
        at: its value at and after each step, [n].
    """
    low, high, twice = 0, values.size - 1, 0.0
    while low < high:
        convex = hull(values, before, low, high, 1.0)
        concave = hull(values, at, low, high, -1.0)
        inside = values[low : high + 1]
        under = np.interp(inside, values[convex], before[convex])
        over = np.interp(inside, values[concave], at[concave])
        at_convex = over[convex - low] - before[convex]
        at_concave = at[concave] - under[concave - low]
        if at_convex.max() >= at_concave.max():
            gap, left = at_convex.max(), int(convex[np.argmax(at_convex)])
            right = int(concave[np.searchsorted(concave, left)])
        else:
            gap, right = at_concave.max(), int(concave[np.argmax(at_concave)])
            left = int(convex[np.searchsorted(convex, right, side="right") - 1])
        if gap <= twice:
            break
        if left > low:
            twice = max(twice, (at[low:left] - under[: left - low]).max())
        if right < high:
            twice = max(twice, (over[right - low + 1 :] - before[right + 1 : high + 1]).max())
        if left == low and right == high:
            break
        low, high = left, right
    return float(twice / 2)


def hull(x: Reals, y: Reals, low: int, high: int, side: float) -> NDArray[np.int64]:
    """Return the indices, ascending, of the convex minorant's corners among points low … high.

    With ``side`` = -1 those of the concave majorant.
    """
    kept = np.empty(high - low + 1, np.int64)
    n = 0
    for i in range(low, high + 1):
        while n > 1:
            first, last = kept[n - 2], kept[n - 1]
            rise = (y[last] - y[first]) * (x[i] - x[first])
            if side * (rise - (y[i] - y[first]) * (x[last] - x[first])) < 0:
                break
            n -= 1
        kept[n] = i
        n += 1
    return kept[:n]


def _thinned(values: Reals, at: Reals) -> tuple[Reals, Reals, Reals]:
    """Read F at ``MAX_DIP_STEPS`` evenly spaced ranks, the two ends included."""
    wanted = (np.arange(MAX_DIP_STEPS) + 1) / MAX_DIP_STEPS
    rows = np.unique(np.minimum(np.searchsorted(at, wanted - 1e-12), values.size - 1))
    kept = at[rows]
    return values[rows], np.concatenate([[0.0], kept[:-1]]), kept


def unimodality_p_value(
    sample: Reals,
    low: float,
    high: float,
    *,
    seed: int,
    n_effective: float = MAX_SILVERMAN_SAMPLE,
) -> float:
    """Return the p-value of "one mode" on [low, high]; NaN with fewer than 10 distinct values.

    Args:
        sample: finite values [N], in any order.
        low: left end of the axis; values outside are not looked at.
        high: right end of the axis.
        seed: of the bootstrap.
        n_effective: thins the sample to so many values, where its values depend on one another.
    """
    inside = np.sort(sample[(sample >= low) & (sample <= high)])
    if np.unique(inside).size < FEWEST_FOR_SILVERMAN:
        return float("nan")
    most = max(int(min(MAX_SILVERMAN_SAMPLE, n_effective)), FEWEST_FOR_SILVERMAN)
    if inside.size > most:
        inside = inside[np.linspace(0, inside.size - 1, most).astype(np.int64)]
    # The critical bandwidth h is the least at which the density has a single mode: small under "one
    # mode". Draws from the density at h, which has one mode just so, show a second one at h as
    # often as a unimodal sample would need more than h.
    critical = _critical_bandwidth(inside, low, high)
    random = generator(seed, "silverman")
    # rescaled so that the smoothed bootstrap keeps the sample's variance
    variance = float(inside.var())
    shrink = 1 / np.sqrt(1 + critical**2 / variance)
    more = 0
    for _ in range(SILVERMAN_DRAWS):
        drawn = random.choice(inside, inside.size)
        noisy = inside.mean() + shrink * (
            drawn - inside.mean() + critical * random.standard_normal(inside.size)
        )
        more += _n_modes(_reflect(noisy, low, high), low, high, critical) > 1
    return (more + 1) / (SILVERMAN_DRAWS + 1)  # never 0: Davison and Hinkley, 1997


def _reflect(values: Reals, low: float, high: float) -> Reals:
    span = high - low
    folded = np.mod(values - low, 2 * span)
    return low + np.where(folded > span, 2 * span - folded, folded)


def _n_modes(sample: Reals, low: float, high: float, bandwidth: float) -> int:
    counts = np.histogram(sample, SILVERMAN_BINS, (low, high))[0].astype(np.float64)
    smooth = gaussian_filter1d(
        counts, bandwidth * SILVERMAN_BINS / (high - low), mode="reflect", truncate=6.0
    )
    # relative rounding: differences below float noise are plateaus, not modes
    steps = np.sign(np.round(np.diff(smooth) / smooth.max(), 10))
    steps = steps[steps != 0]
    inner = int(((steps[:-1] > 0) & (steps[1:] < 0)).sum())
    at_ends = int(steps[0] < 0) + int(steps[-1] > 0) if steps.size else 1
    return inner + at_ends


def _critical_bandwidth(sample: Reals, low: float, high: float) -> float:
    small, large = (high - low) / SILVERMAN_BINS, high - low
    for _ in range(SILVERMAN_BISECTIONS):
        middle = float(np.sqrt(small * large))
        if _n_modes(sample, low, high, middle) > 1:
            small = middle
        else:
            large = middle
    return large


# The null of the dip test: 100,000 simulated samples of each size, by benchmarks/dip_null.py; a
# p-value read from the last column rests on ten of them.
DIP_SIZES = np.array(
    [4, 5, 6, 7, 8, 9, 10, 15, 20, 30, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000],
    dtype=np.float64,
)  # fmt: skip
"""Sample sizes, one a row of ``DIP_QUANTILES``."""

DIP_LEVELS = np.array(
    [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999,
     0.9995, 0.9999]
)  # fmt: skip
"""Probabilities, one a column of ``DIP_QUANTILES``."""

_TEN_THOUSANDTHS = """
2500 2500 2500 2500 2500 2500 2500 2666 3163 3758 4144 4471 4634 4744 4838 4886 4922 4952
2236 2236 2236 2236 2431 2718 2999 3293 3599 3949 4166 4330 4394 4431 4456 4464 4468 4471
2041 2041 2267 2548 2789 3017 3231 3444 3661 3899 4036 4382 4704 4945 5205 5384 5482 5700
1929 2171 2496 2735 2938 3120 3289 3451 3614 3823 4243 4651 4887 5076 5264 5368 5459 5582
2087 2315 2606 2819 2989 3139 3276 3405 3541 4002 4349 4689 4884 5058 5287 5501 5724 6057
2199 2410 2667 2849 2997 3124 3239 3374 3678 4082 4388 4703 4906 5185 5500 5671 5819 6201
2268 2463 2695 2853 2980 3089 3223 3472 3750 4120 4412 4761 5031 5282 5538 5706 5890 6180
2362 2489 2683 2889 3066 3238 3411 3602 3856 4258 4591 4975 5259 5497 5820 6010 6183 6652
2364 2546 2778 2954 3116 3278 3469 3684 3946 4343 4691 5104 5396 5645 5986 6173 6438 6746
2437 2598 2831 3021 3198 3375 3563 3780 4056 4470 4830 5250 5555 5816 6134 6357 6597 7210
2492 2667 2902 3092 3270 3448 3646 3877 4157 4586 4962 5414 5726 6020 6377 6654 6823 7196
2563 2742 2984 3178 3361 3546 3743 3973 4260 4704 5101 5564 5890 6203 6565 6803 7022 7599
2620 2799 3044 3243 3429 3618 3825 4061 4358 4813 5205 5688 6012 6305 6725 7021 7319 7882
2666 2846 3095 3297 3486 3678 3885 4123 4425 4882 5290 5784 6113 6449 6850 7144 7395 7823
2696 2878 3124 3325 3514 3708 3914 4158 4462 4932 5343 5826 6174 6485 6884 7128 7431 7982
2710 2893 3146 3350 3540 3735 3946 4190 4497 4964 5382 5881 6236 6558 6961 7215 7499 8001
2734 2917 3166 3372 3563 3757 3966 4208 4516 4981 5399 5918 6268 6606 6993 7275 7595 8076
2741 2922 3175 3380 3571 3767 3981 4224 4536 5011 5428 5926 6282 6601 7019 7323 7550 8209
2747 2932 3183 3386 3582 3775 3990 4233 4544 5012 5440 5955 6294 6631 7087 7390 7693 8268
"""

DIP_QUANTILES = (
    np.array(_TEN_THOUSANDTHS.split(), np.float64).reshape(DIP_SIZES.size, DIP_LEVELS.size) / 10_000
)
"""√n·dip that is exceeded with probability 1 - level."""

SMALLEST_DIP_P = round(float(1 - DIP_LEVELS[-1]), 10)
"""Smallest p-value that the simulated null resolves."""
