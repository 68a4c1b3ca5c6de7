"""Where two normal components of a histogram are equally likely: a Gaussian mixture by EM.

Gaussian on both axes: log norms are near normal within a mode, and for the CDS, which lies between
0 and 1, a Beta mixture has no likelihood where features score exactly 0 or 1. A component may not
be narrower than the kernel that shows the histogram, or one would shrink onto such an atom.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitscope.scope.binned import Binned

MAX_STEPS = 2000
SETTLED = 1e-10
"""EM ends when the mean log-likelihood of a value rises by less."""

START_SHARES = (0.5, 0.1, 0.02)
"""Shares of the values above the cuts that EM starts from: the upper component may be rare."""

BLUR = 0.01
"""Share that EM starts with on the other side of the cut: no component is without values."""

LEAST = 1e-12
"""Share in a value that no component falls below: an empty one has no mean."""

Values = NDArray[np.float64]
Parts = tuple[Values, Values, Values]


@dataclass(frozen=True)
class Mixture:
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


def fit_mixture(binned: Binned, narrowest: float) -> Mixture:
    """Fit two normal components to one sample by EM, and return the likeliest of three fits.

    Args:
        binned: one sample of at least one value.
        narrowest: least standard deviation of a component, in the units of the axis.
    """
    used = binned.counts > 0
    x, weight = binned.centres[used], binned.counts[used] / binned.counts.sum()
    floor = max(narrowest, binned.width)
    starts = [binned.quantile(1 - share) for share in START_SHARES]
    fits = [_climb(x, weight, float(start), floor) for start in starts]
    # of equally likely fits the first
    return max(fits, key=lambda fit: round(fit.log_likelihood, 9))


def _climb(x: Values, weight: Values, cut: float, floor: float) -> Mixture:
    """Climb from the two sides of ``cut`` to the nearest maximum of the likelihood."""
    upper = np.where(x > cut, 1 - BLUR, BLUR)
    parts = _maximise(x, weight, np.stack([1 - upper, upper]), floor)
    shares, likelihood = _expect(x, weight, parts)
    for _ in range(MAX_STEPS):
        before, parts = likelihood, _maximise(x, weight, shares, floor)
        shares, likelihood = _expect(x, weight, parts)
        if likelihood - before < SETTLED:
            break
    order = np.argsort(parts[0], kind="stable")
    means, spreads, mass = (part[order] for part in parts)
    mass = mass / mass.sum()
    return Mixture(
        means=(float(means[0]), float(means[1])),
        spreads=(float(spreads[0]), float(spreads[1])),
        weights=(float(mass[0]), float(mass[1])),
        log_likelihood=likelihood,
        threshold=_crossing(means, spreads, mass),
    )


def _maximise(x: Values, weight: Values, shares: Values, floor: float) -> Parts:
    """Return means, spreads and weights, [2] each, from each value's shares [2, N]."""
    mass = shares @ weight
    means = (shares * x) @ weight / mass
    squares = (shares * (x - means[:, None]) ** 2) @ weight / mass
    return means, np.sqrt(np.maximum(squares, floor**2)), mass


def _expect(x: Values, weight: Values, parts: Parts) -> tuple[Values, float]:
    """Return the components' shares in each value, [2, N], and the mean log-likelihood."""
    means, spreads, mass = (part[:, None] for part in parts)
    logs = np.log(mass / spreads) - 0.5 * ((x - means) / spreads) ** 2
    total = np.logaddexp(logs[0], logs[1])
    return np.maximum(np.exp(logs - total), LEAST), float(total @ weight)


def _crossing(means: Values, spreads: Values, weights: Values) -> float:
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
