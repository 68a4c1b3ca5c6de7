"""A run in few numbers: on top of the page, group by group, and beside other runs."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitscope.figures.numbers import UNDEFINED, decimal, percent, significant, whole
from vitscope.run import Run
from vitscope.scope.awcds import NormSpectrum
from vitscope.scope.pairs import MISS_KINDS
from vitscope.stages.partition import PartitionResult
from vitscope.store.tables import tables_of

MISSED = {
    "max": "a pair active in one view only counts D_grid",
    "drop": "a pair active in one view only is left out",
    "zero": "a pair active in one view only counts 0",
}
GAMMA = {
    "given": "given in the settings",
    "valley": "the valley of the histogram",
    "otsu": "Otsu's threshold, for want of a second mode",
}

TOP_PERCENT = 2.0
"""Tokens of highest norm whose awCDS is set beside that of the median tokens."""


@dataclass(frozen=True)
class Headline:
    """A number, what it is, and how it was computed; ``tone`` colours it by group."""

    value: str
    label: str
    computed: str
    tone: str = ""


def headlines(run: Run) -> tuple[Headline, ...]:
    """Return the numbers on top of the page."""
    return (*_group_sizes(run), _outliers(run), _instability(run), _awcds(run), _fvu(run))


def _group_sizes(run: Run) -> tuple[Headline, Headline]:
    part, rule = run.partition, run.study.scope.missing
    m, n_low, n_high = (len(group) for group in (part.cds, part.low, part.high))
    unscored = len(part.unscored)
    rest = f"; {whole(unscored)} without a score" if unscored else ""
    return (
        Headline(
            whole(n_low),
            "low-CDS (local) features",
            f"{percent(n_low / max(m, 1))} of {whole(m)}; CDS ≤ γ = {decimal(part.gamma)}, "
            f"{GAMMA[part.source]}{rest}",
            "low",
        ),
        Headline(
            whole(n_high),
            "high-CDS (context-dependent) features",
            f"{percent(n_high / max(m, 1))} of {whole(m)}; CDS > γ; missing = {rule}: "
            f"{MISSED[rule]}",
            "high",
        ),
    )


def _outliers(run: Run) -> Headline:
    tau, settings = run.outliers.threshold, run.study.outliers
    source = {"percentile": f"the {settings.tau_percentile:g}th percentile, no second mode"}
    return Headline(
        percent(tau.share),
        "of patch tokens are outliers",
        f"norm > τ = {significant(tau.tau)} ({source.get(tau.source, tau.source)})",
    )


def _instability(run: Run) -> Headline:
    found = run.instability.chosen
    times = ""
    if math.isfinite(found.ratio):
        ends = f"{decimal(found.ratio_low, 1)} to {decimal(found.ratio_high, 1)}"
        times = f", {decimal(found.ratio, 1)} times as far ({ends})"
    return Headline(
        f"{decimal(found.outlier.mean, 2)} | {decimal(found.other.mean, 2)}",
        "patches that attention moves: outlier | other tokens",
        f"mean EMD, attention = {found.reading}, shift {found.shift}{times}",
    )


def _awcds(run: Run) -> Headline:
    spectrum = run.awcds.spectrum
    values = awcds_of_highest(spectrum), awcds_of_median(spectrum)
    share = highest_share(spectrum)
    return Headline(
        " | ".join(decimal(value, 2) for value in values),
        "awCDS: highest-norm | median tokens",
        f"means of the top {share:.2g} % of norms, and of the 40th to 60th percentile",
    )


def _fvu(run: Run) -> Headline:
    found, training = run.reconstruction, run.training.training
    l0 = decimal(found.all.l0, 1)
    computed = "about the mean of all tokens"
    if l0 != UNDEFINED:
        computed += f"; {l0} features active per token"
    if training is None or run.study.images.eval is not None:
        return Headline(
            f"{decimal(found.all.fvu)} | {decimal(found.outlier.fvu)}",
            "variance unexplained: all | outlier tokens",
            computed,
        )
    # the SAE has seen these images, so that what it does on them says little of others
    return Headline(
        f"{decimal(training.held_out_fvu)} | {decimal(found.all.fvu)}",
        "variance unexplained: held-out tokens | all of these images",
        f"{whole(training.held_out_tokens)} tokens were never trained on; on all, {computed}; "
        f"outlier tokens {decimal(found.outlier.fvu)}",
    )


def group_rows(partition: PartitionResult) -> list[dict[str, Any]]:
    """Return what sets the two groups apart.

    A row has ``name`` and ``n``; the medians over features of ``cds``, ``relative`` (over the
    relocation null), ``support`` (active overlap patches), ``survival`` (share of pairs with mass
    in both views) and ``density`` (share of tokens); the means of what ``cds_max`` adds up from,
    ``moved`` and the kinds of miss; and the sums over features of the mean activation on an outlier
    token and on another.
    """
    features = partition.features
    medians = ("cds", "relative", "support", "survival", "density")
    sums = ("mean_on_outlier", "mean_on_other")
    rows: list[dict[str, Any]] = []
    for name in ("low", "high"):
        group = partition.group(name)
        row: dict[str, Any] = {"name": name, "n": len(group)}
        row |= {column: median(features[column][group]) for column in medians}
        row |= {column: _mean(features[column][group]) for column in ("moved", *MISS_KINDS)}
        for column in sums:
            values = features[column][group]
            row[column] = float(np.nansum(values)) if np.isfinite(values).any() else math.nan
        rows.append(row)
    return rows


def _mean(values: NDArray[Any]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else math.nan


def run_row(run: Run) -> dict[str, Any]:
    """Return the figures that stand beside those of other runs, by the names that the page uses.

    Raises:
        ArtifactError: a stage has not finished, or its tables are not whole.
    """
    with tables_of(run.root):
        part, spectrum = run.partition, run.awcds.spectrum
        return {
            "name": run.name,
            "site": run.site,
            "n_images": run.reconstruction.n_images,
            "all": run.reconstruction.all,
            "cds": part.cds,
            "median_cds": median(part.cds),
            "median_relative": median(part.features["relative"]),
            "partition": part,
            "n_low": len(part.low),
            "n_high": len(part.high),
            "tau": run.outliers.threshold,
            "instability": run.instability.chosen,
            "spectrum": spectrum,
            "awcds_highest": awcds_of_highest(spectrum),
            "awcds_median": awcds_of_median(spectrum),
        }


def median(values: NDArray[Any]) -> float:
    """Return the median of the finite ``values``; NaN without any."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else math.nan


def highest_share(spectrum: NormSpectrum) -> float:
    """Return how many per cent of the tokens count as those of highest norm: one bin at least."""
    return max(TOP_PERCENT, 100 / max(spectrum.percentile.size, 1))


def awcds_of_highest(spectrum: NormSpectrum) -> float:
    """Return the mean awCDS of the tokens of highest norm; NaN without any."""
    return _mean_awcds(spectrum, spectrum.percentile >= 100 - highest_share(spectrum))


def awcds_of_median(spectrum: NormSpectrum) -> float:
    """Return the mean awCDS from the 40th to the 60th percentile of the norm; NaN without any."""
    return _mean_awcds(spectrum, np.abs(spectrum.percentile - 50) <= 10)


def _mean_awcds(spectrum: NormSpectrum, rows: NDArray[np.bool_]) -> float:
    values = spectrum.awcds[rows & np.isfinite(spectrum.awcds)]
    return float(values.mean()) if values.size else math.nan


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
        text += f" In the bin of highest norms they are {percent(float(missing[-1]))}."
    shares = spectrum.scored_share[np.isfinite(spectrum.scored_share)]
    if shares.size:
        low, high = percent(float(shares.min())), percent(float(shares.max()))
        span = low if low == high else f"Between {low} and {high}"
        text += f" {span} of a bin's activation is on features with a score."
    return text
