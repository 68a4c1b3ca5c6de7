"""The few numbers on top of the page, each with the reading it was computed under."""

import math
from dataclasses import dataclass

from vitscope.report.data import ReportData
from vitscope.report.instability import chosen_reading
from vitscope.report.numbers import UNDEFINED, decimal, percent, significant, whole
from vitscope.report.spectrum import awcds_of_highest, awcds_of_median, highest_share

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


@dataclass(frozen=True)
class Headline:
    """A number, what it is, and the reading behind it; ``tone`` colours it by group."""

    value: str
    label: str
    reading: str
    tone: str = ""


def headlines(data: ReportData) -> tuple[Headline, ...]:
    """Return the numbers on top of the page."""
    return (
        *_group_sizes(data),
        _outliers(data),
        _instability(data),
        _awcds(data),
        _reconstruction(data),
    )


def _group_sizes(data: ReportData) -> tuple[Headline, Headline]:
    part, m = data.partition, data.n_features
    cut = f"γ = {decimal(part.gamma)}, {GAMMA[part.source]}"
    unscored = int(part.unscored.size)
    rest = f"; {whole(unscored)} without a score" if unscored else ""
    return (
        Headline(
            whole(part.low.size),
            "low-CDS (local) features",
            f"{percent(part.low.size / max(m, 1))} of {whole(m)}; CDS ≤ {cut}{rest}",
            "low",
        ),
        Headline(
            whole(part.high.size),
            "high-CDS (context-dependent) features",
            f"{percent(part.high.size / max(m, 1))} of {whole(m)}; CDS > γ; "
            f"missing = {data.scope.missing}: {MISSED[data.scope.missing]}",
            "high",
        ),
    )


def _outliers(data: ReportData) -> Headline:
    tau = data.tau
    source = {"percentile": f"the {data.outliers.tau_percentile:g}th percentile, no second mode"}
    reading = source.get(tau.source, tau.source)
    return Headline(
        percent(tau.share),
        "of patch tokens are outliers",
        f"norm > τ = {significant(tau.tau)} ({reading})",
    )


def _instability(data: ReportData) -> Headline:
    chosen = chosen_reading(data.instability, data.scope, data.outliers)
    out, non = (chosen.out.mean, chosen.non.mean) if chosen else (math.nan, math.nan)
    times = ""
    if chosen and math.isfinite(chosen.ratio):
        ends = f"{decimal(chosen.ratio_low, 1)} to {decimal(chosen.ratio_high, 1)}"
        times = f", {decimal(chosen.ratio, 1)} times as far ({ends})"
    return Headline(
        f"{decimal(out, 2)} | {decimal(non, 2)}",
        "patches that attention moves: outlier | other tokens",
        f"mean EMD, attention = {data.outliers.attention}, shift {data.scope.shift}{times}",
    )


def _awcds(data: ReportData) -> Headline:
    spectrum = data.spectrum
    values = awcds_of_highest(spectrum), awcds_of_median(spectrum)
    share = highest_share(spectrum)
    return Headline(
        " | ".join(decimal(value, 2) for value in values),
        "awCDS: highest-norm | median tokens",
        f"means of the top {share:.2g} % of norms, and of the 40th to 60th percentile",
    )


def _reconstruction(data: ReportData) -> Headline:
    every, outliers = data.reconstruction.all, data.reconstruction.outlier
    l0 = decimal(every.l0, 1)
    return Headline(
        f"{decimal(every.fvu)} | {decimal(outliers.fvu)}",
        "variance unexplained: all | outlier tokens",
        "about the mean of all tokens"
        + (f"; {l0} features active per token" if l0 != UNDEFINED else ""),
    )
