"""How numbers are written on the page; what is not defined is a dash, never ``nan``."""

import math

from vitscope.scope.modes import SMALLEST_DIP_P

UNDEFINED = "–"


def whole(value: float) -> str:
    """Write a count with thousands apart: 17,329."""
    return f"{value:,.0f}" if math.isfinite(value) else UNDEFINED


def decimal(value: float, digits: int = 3) -> str:
    """Write a figure with so many decimals: 0.142."""
    return f"{value:.{digits}f}" if math.isfinite(value) else UNDEFINED


def significant(value: float) -> str:
    """Write a figure of any size with four digits: 31.49."""
    return f"{value:.4g}" if math.isfinite(value) else UNDEFINED


def with_error(value: float, error: float, digits: int = 3) -> str:
    """Write a mean with its standard error: 0.142 ± 0.011; without one, the mean alone."""
    if not (math.isfinite(value) and math.isfinite(error)):
        return decimal(value, digits)
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def with_interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """Write a figure with its interval: 5.18 [4.97, 5.40]; without one, the figure alone."""
    if not (math.isfinite(value) and math.isfinite(low) and math.isfinite(high)):
        return decimal(value, digits)
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def percent(share: float) -> str:
    """Write a share as a percentage to three figures: 1.87 %; a tiny one as < 0.001 %."""
    if not math.isfinite(share):
        return UNDEFINED
    if 0 < share < 1e-5:
        return "< 0.001 %"
    return f"{100 * share:.3g} %"


def p_value(value: float) -> str:
    """Write a p-value with its relation: = 0.32; the smallest that is resolved as ≤ 0.0001."""
    if not math.isfinite(value):
        return f"= {UNDEFINED}"
    return f"= {value:.2g}" if value > SMALLEST_DIP_P else f"≤ {SMALLEST_DIP_P:g}"


def duration(seconds: float) -> str:
    """Write a time span: 4.2 s, 3 min 05 s, 2 h 10 min."""
    if not math.isfinite(seconds):
        return UNDEFINED
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def sentence(text: str) -> str:
    """Begin with a capital where a Latin letter begins: a γ stays what it is."""
    return text[:1].upper() + text[1:] if text[:1].isascii() else text
