"""What the page says of a threshold: how it was found, how firm it is, where others would cut."""

from dataclasses import dataclass

import numpy as np

from vitscope.figures.numbers import p_value, significant, whole
from vitscope.scope.thresholds import ThresholdEvidence
from vitscope.stages.outliers import OutliersResult
from vitscope.stages.partition import PartitionResult

METHODS = {
    "valley": "valley of the density",
    "otsu": "Otsu: most variance between the sides",
    "mixture": "two normal components, equally likely",
    "percentile": "the stated percentile",
    "paper": "the paper's, for this model and block",
    "given": "given in the settings",
}
"""How a threshold is found."""

SAME = {"zoo": "paper"}
"""A source of τ that the alternatives know by another name."""

SIGNIFICANT_P = 0.05


@dataclass(frozen=True)
class ThresholdRow:
    """A threshold and the groups it makes, as written; ``used`` where it is the run's own."""

    method: str
    threshold: str
    below: str
    above: str
    used: bool


@dataclass(frozen=True)
class ThresholdView:
    """Sentences and the table of thresholds."""

    message: str
    tests: str
    firmness: str
    rows: tuple[ThresholdRow, ...]


def gamma_view(partition: PartitionResult) -> ThresholdView:
    """Return what the page says of γ."""
    evidence, cds = partition.evidence, partition.cds
    scored = cds[np.isfinite(cds)]
    n_above = int((scored > partition.gamma).sum())
    return ThresholdView(
        message=partition.message,
        tests=describe_tests(evidence),
        firmness=evidence.describe("γ", "features", "high-CDS features"),
        rows=_rows(evidence, partition.source, partition.gamma, scored.size - n_above, n_above),
    )


def tau_view(outliers: OutliersResult) -> ThresholdView:
    """Return what the page says of τ."""
    evidence, tau, n_tokens = outliers.evidence, outliers.threshold, outliers.n_tokens
    n_above = round(tau.share * n_tokens) if np.isfinite(tau.share) else 0
    source, tests = SAME.get(tau.source, tau.source), describe_tests(evidence)
    if evidence.n_effective < n_tokens:
        tests += (
            f" Tokens of one image depend on one another: both tests take the {whole(n_tokens)} "
            f"tokens for {whole(evidence.n_effective)}."
        )
    return ThresholdView(
        message=tau.message,
        tests=tests,
        firmness=evidence.describe("τ", "images", "outlier tokens"),
        rows=_rows(evidence, source, tau.tau, n_tokens - n_above, n_above),
    )


def describe_tests(evidence: ThresholdEvidence) -> str:
    """Return both tests of a single mode in words."""
    dip, silverman = evidence.dip_p, evidence.silverman_p
    text = (
        f"Of a single mode, the dip test says p {p_value(dip)}, Silverman's test "
        f"p {p_value(silverman)}"
    )
    if not (np.isfinite(dip) and np.isfinite(silverman)):
        return f"{text}."
    if max(dip, silverman) < SIGNIFICANT_P:
        return f"{text}: a single mode is unlikely."
    if min(dip, silverman) >= SIGNIFICANT_P:
        return f"{text}: no evidence of a second mode, and the cut is then a convention."
    if silverman < SIGNIFICANT_P:
        return (
            f"{text}. They disagree: the dip test weighs a mode by its mass and overlooks a "
            "small one."
        )
    return f"{text}. They disagree: Silverman's is the more cautious where modes overlap."


def _rows(
    evidence: ThresholdEvidence, source: str, used: float, below: int, above: int
) -> tuple[ThresholdRow, ...]:
    """Return a row per method, the run's own first."""
    own = ThresholdRow(METHODS[source], significant(used), whole(below), whole(above), True)
    others = (
        ThresholdRow(
            METHODS[other.name],
            significant(other.threshold),
            whole(other.n_below) if np.isfinite(other.threshold) else whole(np.nan),
            whole(other.n_above) if np.isfinite(other.threshold) else whole(np.nan),
            False,
        )
        for other in evidence.alternatives
        if other.name != source
    )
    return (own, *others)
