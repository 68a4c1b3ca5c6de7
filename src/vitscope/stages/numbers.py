"""Numbers as a line of the terminal has them."""

import math


def short(value: float | None) -> str:
    """Return three significant digits; a dash where there is no number."""
    return "–" if value is None or math.isnan(value) else f"{value:.3g}"


def with_ends(value: float, low: float, high: float) -> str:
    """Return a mean with the ends of its interval, where it has one."""
    if math.isnan(low) or math.isnan(high):
        return short(value)
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"
