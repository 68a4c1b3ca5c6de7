"""What the awCDS curve leaves out, in words."""

import numpy as np

from vitscope.report.numbers import percent, whole
from vitscope.scope.awcds import NormSpectrum


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
