"""What probes and zero-shot have found, as plain records: no tensor, nothing to recompute."""

from collections.abc import Mapping
from dataclasses import dataclass

ORIGINAL = "original"
"""The variant of the tokens from which nothing is removed."""


@dataclass(frozen=True)
class VariantResult:
    """The best trial of each search on one variant of the tokens.

    Attributes:
        variant: its name.
        mean: over searches; NaN where every trial of every search has diverged.
        spread: standard deviation over searches; NaN for fewer than two.
        values: of each search with a result.
        diverged: names of the trials that were left out.
        others: every other metric, as a mean over the best trials.
    """

    variant: str
    mean: float
    spread: float
    values: tuple[float, ...]
    diverged: tuple[str, ...]
    others: dict[str, float]


@dataclass(frozen=True)
class TaskResult:
    """The probes of one task.

    Attributes:
        task: its name.
        metric: what chooses among trials and is reported.
        higher_is_better: which way it improves.
        n_train: images that heads learn from.
        n_validation: images that they are scored on.
        variants: the original first, then one per group removed.
    """

    task: str
    metric: str
    higher_is_better: bool
    n_train: int
    n_validation: int
    variants: tuple[VariantResult, ...]

    @property
    def values(self) -> Mapping[str, tuple[float, ...]]:
        """Variant -> the best value of every search."""
        return {one.variant: one.values for one in self.variants}

    @property
    def n_diverged(self) -> int:
        """Heads that are left out."""
        return sum(len(one.diverged) for one in self.variants)


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: equal bins of confidence.

    Attributes:
        edges: of the bins, from 0 to 1, [bins + 1].
        n: predictions in each, [bins].
        confidence: their mean confidence; NaN in an empty bin.
        accuracy: share of them that are right; NaN in an empty bin.
        expected_error: mean over predictions of |accuracy - confidence| of their bin.
    """

    edges: tuple[float, ...]
    n: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    expected_error: float


@dataclass(frozen=True)
class ZeroShotSummary:
    """Zero-shot predictions on one variant of the tokens, summed up.

    Attributes:
        variant: of the tokens.
        top1: share of images whose class is the likeliest.
        top5: share whose class is among the five likeliest.
        confidence: mean probability of the likeliest class.
        calibration: confidence against accuracy, by bin, and its expected error.
        flips: images whose prediction is not that of the original.
        flips_lost: those of them that the original had right.
        flips_won: those that are right now.
    """

    variant: str
    top1: float
    top5: float
    confidence: float
    calibration: Reliability
    flips: int
    flips_lost: int
    flips_won: int
