"""One check: what was measured, what is true, and how far apart they may be."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


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

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON, NaN as null."""
        values = asdict(self)
        return {key: None if _is_nan(value) else value for key, value in values.items()}


def within(name: str, measured: float | None, expected: float, tolerance: float) -> Check:
    """Measured and expected differ by at most ``tolerance``; NaN (or null) never passes."""
    found, truth = _number(measured), _number(expected)
    return Check(name, found, truth, f"± {tolerance:.3g}", bool(abs(found - truth) <= tolerance))


def at_least(name: str, measured: float | None, least: float) -> Check:
    """Measured is at least ``least``; NaN (or null) never passes."""
    found = _number(measured)
    return Check(name, found, None, f"≥ {least:.3g}", bool(found >= least))


def at_most(name: str, measured: float | None, most: float) -> Check:
    """Measured is at most ``most``; NaN (or null) never passes."""
    found = _number(measured)
    return Check(name, found, None, f"≤ {most:.3g}", bool(found <= most))


def reported(name: str, measured: float | None, expected: float | None = None) -> Check:
    """A figure without a bound."""
    truth = None if expected is None else _number(expected)
    return Check(name, _number(measured), truth, "reported", None)


def failures(checks: Sequence[Check]) -> list[Check]:
    """Return the checks whose bound does not hold."""
    return [check for check in checks if check.passed is False]


def _number(value: float | None) -> float:
    # to Python's float: NumPy's comparisons give a bool of their own that `is False` overlooks
    return math.nan if value is None else float(value)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
