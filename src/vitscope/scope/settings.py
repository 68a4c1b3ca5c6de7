"""What the stages of scope can be told; each is an assumption of the protocol with its default."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from vitscope.errors import ConfigError
from vitscope.settings import Settings

Missing = Literal["max", "drop", "zero"]
"""What a pair counts whose map is empty in exactly one view: D_grid, nothing, or 0."""

UnscoredRule = Literal["separate", "low"]
"""Where features without a score go; the paper's Table 4 must have put them in the low group."""

Membership = Literal["either", "first", "both"]
"""Which view's norm must exceed τ for a token to be an outlier."""

AttentionReading = Literal["query", "received", "key"]
"""Which maps of attention are compared between two views; the paper leaves it open."""


class ScopeSettings(Settings):
    """Contextual Dependency Score and partition (protocol, sections 4 to 6)."""

    shift: int = Field(default=1, ge=1)
    """s: how far the two views are apart, in patches."""

    top_images: int = Field(default=16, ge=1)
    """k_CDS: exemplar images per feature."""

    missing: Missing = "max"
    """The reading used for ``cds`` and the partition; all three are always reported."""

    min_pairs: int = Field(default=1, ge=1)
    """Pairs that a score needs; with fewer a feature is unscored. On small image sets a mean over
    one or two pairs says little."""

    min_strength: float = Field(default=0.0, ge=0)
    """Pairs count in whose stronger view the feature comes to so many times its threshold; weaker
    ones cross it at the least change, and are left out. 0 counts all, as the paper does."""

    unscored: UnscoredRule = "separate"
    """Where features without a score go."""

    gamma: float | None = Field(default=None, ge=0, le=1)
    """γ by hand; None takes the valley of the CDS histogram."""

    null_draws: int = Field(default=2, ge=0)
    """Random placements per pair for the relocation null; 0 leaves the null out."""

    cross_null: bool = True
    """Also compare each feature's maps across different exemplar images."""

    sample_features: int | None = Field(default=None, ge=1)
    """Score so many features drawn at random (by seed) from those that fire; None scores all."""

    resize: Literal["crop", "stretch"] = "crop"
    """Shorter side and centre crop, or both sides stretched to the square."""

    @model_validator(mode="after")
    def _enough_exemplars(self) -> Self:
        if self.min_pairs > self.top_images:
            raise ValueError(
                f"min_pairs = {self.min_pairs} exceeds top_images = {self.top_images}: no feature "
                "could have a score"
            )
        return self

    @model_validator(mode="after")
    def _no_sample_in_the_low_group(self) -> Self:
        if self.unscored == "low" and self.sample_features is not None:
            raise ValueError("unscored = 'low' would call every feature outside the sample low")
        return self


class OutlierSettings(Settings):
    """Outlier threshold and attention instability (protocol, sections 1 and 7)."""

    tau: float | None = Field(default=None, gt=0)
    """τ by hand; None proposes the valley of the log-norm histogram."""

    tau_percentile: float = Field(default=98.0, gt=0, lt=100)
    """Percentile of the norms that stands in for τ where there is no second mode."""

    images: int = Field(default=1000, ge=1)
    """Images for τ and for the instability, one per class in turn."""

    tokens_per_image: int = Field(default=16, ge=0)
    """Non-outlier tokens drawn per image; outliers all count; 0 takes every token."""

    membership: Membership = "either"
    """A token is an outlier when its norm exceeds τ in either view, in the first, or in both."""

    attention: AttentionReading = "query"
    """The reading shown first; all three are always computed."""


class InstabilitySettings(Settings):
    """Attention instability at further shifts (protocol, section 7)."""

    shifts: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Shifts in patches compared besides ``scope.shift``, in the same pass; Table 9 has 1 to 6."""

    @field_validator("shifts")
    @classmethod
    def _ascending(cls, shifts: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(shifts)))


class AwcdsSettings(Settings):
    """awCDS over the norm spectrum."""

    images: int = Field(default=1000, ge=1)
    """Images whose patch tokens are sorted by norm."""

    bins: int = Field(default=50, ge=2)
    """Percentile bins of equal token count."""


class StabilitySettings(Settings):
    """How firm the scores are, beyond what the run's own pairs can say."""

    against: tuple[Path, ...] = ()
    """Other run directories, scored: another shift, another image set, another seed of the SAE."""


def parse_shifts(text: str) -> tuple[int, ...]:
    """Read shifts as they are typed: ``1-6``, ``1,3,5``, or both together.

    Raises:
        ConfigError: it is neither, or a range runs backwards.
    """
    shifts: list[int] = []
    for piece in text.split(","):
        ends = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", piece)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (0, 0)
        if not 1 <= first <= last:
            raise ConfigError(f"--shifts {text!r}: give a range as 1-6, or a list as 1,3,5")
        shifts += range(first, last + 1)
    return tuple(sorted(set(shifts)))


def parse_tokens(text: str) -> int:
    """Read how many other tokens are drawn per image: a number, or ``all``, which is 0.

    Raises:
        ConfigError: it is neither.
    """
    if text.strip() == "all":
        return 0
    if not text.strip().isdecimal() or int(text) < 1:
        raise ConfigError(f"--tokens {text!r}: give a number from 1, or all")
    return int(text)
