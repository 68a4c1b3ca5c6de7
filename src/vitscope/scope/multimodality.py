"""Has a histogram more than one mode? Silverman's bootstrap test of the critical bandwidth.

B. W. Silverman, "Using kernel density estimates to investigate multimodality", 1981. Conservative:
a small p-value is strong evidence of a second mode, a large one is weak evidence of its absence.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from vitscope.draws import generator

N_BOOTSTRAP = 200
N_BINS = 512
N_BISECTIONS = 14
FEWEST = 10
MAX_SAMPLE = 5000
"""A larger sample is thinned evenly over its order statistics: the test needs no more."""


def unimodality_p_value(
    sample: NDArray[np.float64],
    low: float,
    high: float,
    *,
    seed: int,
    n_effective: float = MAX_SAMPLE,
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
    if np.unique(inside).size < FEWEST:
        return float("nan")
    most = max(int(min(MAX_SAMPLE, n_effective)), FEWEST)
    if inside.size > most:
        inside = inside[np.linspace(0, inside.size - 1, most).astype(np.int64)]
    critical = _critical_bandwidth(inside, low, high)
    random = generator(seed, "silverman")
    # rescaled so that the smoothed bootstrap keeps the sample's variance
    variance = float(inside.var())
    shrink = 1 / np.sqrt(1 + critical**2 / variance)
    more = 0
    for _ in range(N_BOOTSTRAP):
        drawn = random.choice(inside, inside.size)
        noisy = inside.mean() + shrink * (
            drawn - inside.mean() + critical * random.standard_normal(inside.size)
        )
        more += _n_modes(_reflect(noisy, low, high), low, high, critical) > 1
    return (more + 1) / (N_BOOTSTRAP + 1)  # never 0: Davison and Hinkley, 1997


def _reflect(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    span = high - low
    folded = np.mod(values - low, 2 * span)
    return low + np.where(folded > span, 2 * span - folded, folded)


def _n_modes(sample: NDArray[np.float64], low: float, high: float, bandwidth: float) -> int:
    counts = np.histogram(sample, N_BINS, (low, high))[0].astype(np.float64)
    smooth = gaussian_filter1d(
        counts, bandwidth * N_BINS / (high - low), mode="reflect", truncate=6.0
    )
    # relative rounding: differences below float noise are plateaus, not modes
    steps = np.sign(np.round(np.diff(smooth) / smooth.max(), 10))
    steps = steps[steps != 0]
    inner = int(((steps[:-1] > 0) & (steps[1:] < 0)).sum())
    at_ends = int(steps[0] < 0) + int(steps[-1] > 0) if steps.size else 1
    return inner + at_ends


def _critical_bandwidth(sample: NDArray[np.float64], low: float, high: float) -> float:
    small, large = (high - low) / N_BINS, high - low
    for _ in range(N_BISECTIONS):
        middle = float(np.sqrt(small * large))
        if _n_modes(sample, low, high, middle) > 1:
            small = middle
        else:
            large = middle
    return large
