"""One check: what was measured, what is true, and how far apart they may be."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """A figure against its truth.

    Attributes:
        name: what was measured.
        measured: by the pipeline.
        expected: by the specification; None for a figure with a bound but no single truth.
        bound: in words.
        passed: whether the bound holds; None where the figure is reported without one.
    """

    name: str
    measured: float
    expected: float | None
    bound: str
    passed: bool | None


def within(name: str, measured: float, expected: float, tolerance: float) -> Check:
    """Measured and expected differ by at most ``tolerance``; NaN never passes."""
    close = abs(measured - expected) <= tolerance
    return Check(name, measured, expected, f"± {tolerance:.3g}", close)


def at_least(name: str, measured: float, least: float) -> Check:
    """Measured is at least ``least``; NaN never passes."""
    return Check(name, measured, None, f"≥ {least:.3g}", measured >= least)


def at_most(name: str, measured: float, most: float) -> Check:
    """Measured is at most ``most``; NaN never passes."""
    return Check(name, measured, None, f"≤ {most:.3g}", measured <= most)


def reported(name: str, measured: float, expected: float | None = None) -> Check:
    """A figure without a bound."""
    return Check(name, measured, expected, "reported", None)


def failures(checks: list[Check]) -> list[Check]:
    """Return the checks whose bound does not hold."""
    return [check for check in checks if check.passed is False or math.isnan(check.measured)]
