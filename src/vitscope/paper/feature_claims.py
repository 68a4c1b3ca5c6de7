"""Verdicts on features and tokens: two modes of CDS, awCDS of outliers, their few features."""

from collections.abc import Sequence

import numpy as np

from vitscope.paper.attention_claims import NO_OUTLIERS
from vitscope.paper.claims import Found, Outcome, Verdict, decide, told
from vitscope.paper.findings import is_percentile
from vitscope.paper.measured import Measured
from vitscope.scope.evidence import Evidence
from vitscope.stages.run_tables import read_spectrum, read_threshold
from vitscope.store.atomic import read_json

SIGNIFICANT = 0.05
FIRM, ABSENT = 0.9, 0.1
"""Share of bootstrap draws with a valley from which it is there, and below which it is not."""

STEEP = 1.5
"""awCDS of outlier tokens over that of median ones from which the rise is called steep."""


def two_modes(found: Sequence[Found]) -> tuple[Verdict, ...]:
    """Judge a dominant low mode of CDS, a separated high one, the high group smaller."""
    verdicts: list[Verdict] = []
    for one in found:
        if "gamma" not in one.numbers:
            continue
        table = read_json(one.run.run.table("partition"))
        evidence = Evidence.from_table(table["evidence"])
        dip, silverman = evidence.dip_p, evidence.silverman_p
        low, high = one.numbers["low"], one.numbers["high"]
        why = (
            f"of one mode, dip test p = {dip:.2g}, Silverman p = {silverman:.2g}; a valley in "
            f"{evidence.valley_found:.0%} of the draws; high-CDS {told(high, 0)}, low-CDS "
            f"{told(low, 0)}"
        )
        smaller = decide(_gap(low, high), 0.0)
        several = max(dip, silverman) < SIGNIFICANT and evidence.valley_found >= FIRM
        single = min(dip, silverman) >= SIGNIFICANT and evidence.valley_found <= ABSENT
        outcome = Outcome.OPEN
        if single or smaller is Outcome.CONTRADICTED:
            outcome = Outcome.CONTRADICTED
        elif several and smaller is Outcome.SUPPORTED:
            outcome = Outcome.SUPPORTED
        verdicts.append(Verdict("two-modes", (one.run.model,), outcome, why))
    return tuple(verdicts)


def _gap(low: Measured, high: Measured) -> Measured:
    """Return low less high; both ends come from the same γ, so they move against each other."""
    return Measured(low.value - high.value, low.low - high.high, low.high - high.low, low.over)


def awcds_rises(found: Sequence[Found]) -> tuple[Verdict, ...]:
    """Judge that awCDS of outlier tokens is well above that of median ones."""
    verdicts: list[Verdict] = []
    for one in found:
        if not one.run.has("awcds"):
            continue
        run = one.run.run
        spectrum, tau = read_spectrum(run), read_threshold(run).tau
        outlier = spectrum.norm > tau
        middle = np.abs(spectrum.percentile - 50) <= 10
        if not (outlier & np.isfinite(spectrum.awcds)).any() or is_percentile(run):
            why = NO_OUTLIERS if is_percentile(run) else "no bin of norms lies above τ"
            verdicts.append(Verdict("awcds-rises", (one.run.model,), Outcome.OPEN, why))
            continue
        ends = {
            name: (float(np.nanmean(getattr(spectrum, name)[outlier])),
                   float(np.nanmean(getattr(spectrum, name)[middle])))
            for name in ("awcds", "low", "high")
        }  # fmt: skip
        ratio = Measured(
            ends["awcds"][0] / ends["awcds"][1],
            ends["low"][0] / ends["high"][1],
            ends["high"][0] / ends["low"][1],
            "images",
        )
        why = (
            f"awCDS of bins above τ {ends['awcds'][0]:.3f}, of the 40th to 60th percentile "
            f"{ends['awcds'][1]:.3f}: ratio {told(ratio, 2)}"
        )
        verdicts.append(Verdict("awcds-rises", (one.run.model,), decide(ratio, STEEP), why))
    return tuple(verdicts)


def fewer_active_on_outliers(found: Sequence[Found]) -> tuple[Verdict, ...]:
    """Judge that L0 on outlier tokens is below L0 on all."""
    verdicts: list[Verdict] = []
    for one in found:
        if "l0.gap" not in one.numbers:
            continue
        gap, models = one.numbers["l0.gap"], (one.run.model,)
        why = f"L0 on outliers less L0 on all: {told(gap, 2)}"
        if is_percentile(one.run.run):
            verdicts.append(Verdict("l0-lower", models, Outcome.OPEN, f"{NO_OUTLIERS}; {why}"))
            continue
        below = Measured(-gap.value, -gap.high, -gap.low, gap.over)
        verdicts.append(Verdict("l0-lower", models, decide(below, 0.0), why))
    return tuple(verdicts)
