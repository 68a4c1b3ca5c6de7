"""Settings of the scope score; each is an assumption of the protocol with its default."""

from typing import Literal, Self

from pydantic import Field, model_validator

from vitscope.settings import Settings

Missing = Literal["max", "drop", "zero"]
"""What a pair counts whose map is empty in exactly one view: D_grid, nothing, or 0."""


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

    unscored: Literal["separate", "low"] = "separate"
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
