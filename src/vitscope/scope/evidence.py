"""What else a histogram says of a threshold: tests of a single mode, an interval, alternatives."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitscope.scope.bootstrap import COVERAGE, Interval

WIDE = 0.2
"""An interval is wide when within it the upper group's size changes by more than this share."""

RARE = 0.9
"""A valley found in fewer of the draws than this is not a firm one."""


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
class Evidence:
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

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "Evidence":
        """Rebuild what ``asdict`` and JSON made of it; null stands for NaN there."""
        values = _with_nan(table)
        values["interval"] = Interval(**_with_nan(table["interval"]))
        values["alternatives"] = tuple(
            Alternative(**_with_nan(row)) for row in table["alternatives"]
        )
        return cls(**values)

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
            f"{100 * COVERAGE:g} % of {draws.n_draws:,} bootstrap draws of the {resampled} put "
            f"{symbol} ({self.method}) between {draws.low:.4g} and {draws.high:.4g}"
        )
        if self.method != "valley":
            text += f"; a valley appears in {found} of them"
        elif self.valley_found < RARE:
            text += f", but only {found} of them have a valley at all: it is not firm"
        else:
            text += f"; {found} of them have a valley"
        if self.changed > WIDE:
            text += (
                f". The interval is wide: from its one end to the other the number of {upper} "
                f"changes by {100 * self.changed:.0f} %"
            )
        return text


def alternative(name: str, threshold: float, values: NDArray[np.float64]) -> Alternative:
    """Return the alternative with the sizes it gives to finite ``values``."""
    above = int((values > threshold).sum())
    below = values.size - above if np.isfinite(threshold) else 0
    return Alternative(name, float(threshold), below, above)


def share_changed(interval: Interval, threshold: float, values: NDArray[np.float64]) -> float:
    """Return by which share of itself the group above changes from end to end of an interval."""
    above = float((values > threshold).sum())
    if not np.isfinite(interval.low) or above == 0:
        return float("nan")
    return float(((values > interval.low) & (values <= interval.high)).sum()) / above


def _with_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: float("nan") if value is None else value for key, value in row.items()}
