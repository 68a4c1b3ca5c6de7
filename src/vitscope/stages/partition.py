"""Stage «partition»: CDS of every feature; γ; low and high."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from vitscope.scope.cds import FeatureScores, summarise_pairs
from vitscope.scope.partition import GammaSource, Partition, gamma_evidence, partition_features
from vitscope.scope.settings import Missing, ScopeSettings
from vitscope.scope.thresholds import ThresholdEvidence
from vitscope.stages.backbone import is_at_paper_layer
from vitscope.stages.evaluate import EvaluateStage
from vitscope.stages.numbers import short
from vitscope.stages.score import ScoreStage
from vitscope.stages.stage import Job, Stage
from vitscope.stages.train import TrainStage
from vitscope.store.records import At
from vitscope.store.tables import Table

MISS_RULES: tuple[Missing, ...] = ("max", "drop", "zero")

PAPER_GAMMA = {"clip-b16": 0.14, "clip-l14": 0.20, "clip-l14-336": 0.13}
"""γ of the paper's Table 4, found for its own SAEs: shown beside ours, never used."""

FEATURE_COLUMNS = tuple(f.name for f in fields(FeatureScores))


@dataclass(frozen=True)
class GroupSizes:
    """Features of each group at a threshold; γ is None where no feature has a score."""

    gamma: float | None
    low: int
    high: int
    unscored: int


@dataclass(frozen=True)
class PartitionResult:
    """The dictionary, split.

    Attributes:
        gamma: γ; a feature is low-CDS when its CDS ≤ γ.
        source: by hand, the histogram's valley, or Otsu's threshold for want of a second mode.
        mode_peaks: CDS of each mode found.
        bandwidth: of the kernel density that showed them.
        message: how γ was found, in a sentence.
        by_missing: sizes of the groups under each rule for missed pairs, γ found anew.
        evidence: how firm γ is, and what else it could be.
        features: a feature: CDS under each rule, its error, support, nulls, activity, group.
    """

    gamma: float
    source: GammaSource
    mode_peaks: tuple[float, ...]
    bandwidth: float
    message: str
    by_missing: Mapping[str, GroupSizes]
    evidence: ThresholdEvidence
    features: Annotated[Table, At("features.parquet")]

    @property
    def cds(self) -> NDArray[np.float64]:
        """Score of every feature, NaN where it has none, [m]."""
        return self.features["cds"].astype(np.float64)

    @property
    def low(self) -> NDArray[np.int64]:
        """Features with CDS ≤ γ, ascending."""
        return self.group("low")

    @property
    def high(self) -> NDArray[np.int64]:
        """Features with CDS > γ, ascending."""
        return self.group("high")

    @property
    def unscored(self) -> NDArray[np.int64]:
        """Features without a CDS, ascending."""
        return self.group("unscored")

    def group(self, name: str) -> NDArray[np.int64]:
        """Return the features of a group, ascending."""
        return np.flatnonzero(self.features["group"] == name)

    @property
    def scores(self) -> FeatureScores:
        """Every figure of the scope of every feature, as records of arrays."""
        return FeatureScores(**{name: self.features[name] for name in FEATURE_COLUMNS})


class PartitionStage(Stage[PartitionResult]):
    """Averages the pairs, finds γ, and writes the table of features."""

    name = "partition"
    after = ("backbone", "train", "evaluate", "score")
    version = 2
    Result = PartitionResult

    def settings(self, job: Job) -> Mapping[str, Any]:
        """Return how pairs are averaged and where they are cut."""
        names = {"missing", "min_pairs", "min_strength", "unscored", "gamma", "shift"}
        return job.study.scope.model_dump(include=names)

    def run(self, job: Job) -> PartitionResult:
        """Work on tables alone: no backbone is loaded."""
        settings = job.study.scope
        scores = feature_scores(job)
        cut = partition_features(scores.cds, gamma=settings.gamma, unscored=settings.unscored)
        paper = PAPER_GAMMA.get(job.study.backbone.name) if is_at_paper_layer(job) else None
        n = len(scores.cds)
        return PartitionResult(
            gamma=cut.gamma,
            source=cut.source,
            mode_peaks=cut.mode_peaks,
            bandwidth=cut.bandwidth,
            message=cut.message,
            by_missing={rule: _sizes(settings, scores, rule) for rule in MISS_RULES},
            evidence=gamma_evidence(scores.cds, cut, seed=job.study.seed, paper=paper),
            features=Table(
                {
                    "feature": np.arange(n),
                    **{name: getattr(scores, name) for name in FEATURE_COLUMNS},
                    **job.result(EvaluateStage).activity,
                    "group": cut.group.tolist(),
                }
            ),
        )

    def headline(self, result: PartitionResult) -> list[tuple[str, str]]:
        """Return γ and the sizes of the groups."""
        sizes = ", ".join(f"{result.group(n).size:,} {n}" for n in ("low", "high", "unscored"))
        return [("γ", f"{short(result.gamma)} ({result.source}): {sizes}")]


def feature_scores(job: Job) -> FeatureScores:
    """Average the scored pairs of a run under its rule for a missed pair."""
    found, scope = job.result(ScoreStage), job.study.scope
    m = job.result(TrainStage).n_features
    pairs = found.scores.strong(scope.min_strength)
    return summarise_pairs(pairs, m, found.diameter, scope.missing, scope.min_pairs)


def _sizes(settings: ScopeSettings, scores: FeatureScores, rule: Missing) -> GroupSizes:
    cds = getattr(scores, f"cds_{rule}")
    if not np.isfinite(cds).any():
        return GroupSizes(None, 0, 0, len(cds))
    cut: Partition = partition_features(cds, gamma=settings.gamma, unscored=settings.unscored)
    return GroupSizes(cut.gamma, len(cut.low), len(cut.high), len(cut.unscored))
