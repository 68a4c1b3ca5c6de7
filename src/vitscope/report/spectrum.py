"""The awCDS curve in a few numbers, and what it leaves out, in words."""

import numpy as np
from numpy.typing import NDArray

from vitscope.report.numbers import percent, whole
from vitscope.scope.awcds import NormSpectrum

TOP_PERCENT = 2.0
"""Tokens of highest norm whose awCDS is set beside that of the median tokens."""


def highest_share(spectrum: NormSpectrum) -> float:
    """Return how many per cent of the tokens count as those of highest norm: one bin at least."""
    return max(TOP_PERCENT, 100 / max(spectrum.percentile.size, 1))


def awcds_of_highest(spectrum: NormSpectrum) -> float:
    """Return the mean awCDS of the tokens of highest norm; NaN without any."""
    return _mean(spectrum, spectrum.percentile >= 100 - highest_share(spectrum))


def awcds_of_median(spectrum: NormSpectrum) -> float:
    """Return the mean awCDS from the 40th to the 60th percentile of the norm; NaN without any."""
    return _mean(spectrum, np.abs(spectrum.percentile - 50) <= 10)


def _mean(spectrum: NormSpectrum, rows: NDArray[np.bool_]) -> float:
    values = spectrum.awcds[rows & np.isfinite(spectrum.awcds)]
    return float(values.mean()) if values.size else float("nan")


def describe_coverage(spectrum: NormSpectrum) -> str:
    """Say how many tokens have no awCDS and why, and where among the norms they are."""
    n, silent, unscored = (
        int(column.sum()) for column in (spectrum.n_tokens, spectrum.n_silent, spectrum.n_unscored)
    )
    if n == 0:
        return "There are no tokens."
    if silent + unscored == 0:
        text = f"Each of the {whole(n)} tokens has an awCDS."
    else:
        text = (
            f"Of {whole(n)} tokens, {whole(unscored)} ({percent(unscored / n)}) have active "
            f"features of which none has a score, and {whole(silent)} ({percent(silent / n)}) have "
            "no active feature: they are in no mean."
        )
        missing = (spectrum.n_silent + spectrum.n_unscored) / np.maximum(spectrum.n_tokens, 1)
        top = float(missing[-1])
        text += f" In the bin of highest norms they are {percent(top)}."
    shares = spectrum.scored_share[np.isfinite(spectrum.scored_share)]
    if shares.size:
        low, high = percent(float(shares.min())), percent(float(shares.max()))
        span = low if low == high else f"Between {low} and {high}"
        text += f" {span} of a bin's activation is on features with a score."
    return text
