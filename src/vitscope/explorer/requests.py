"""What a page may ask to be done, checked before anything is."""

from pydantic import BaseModel, ConfigDict, Field

from vitscope.explorer.without import MOST_FEATURES, RemovedGroup


class GammaRequest(BaseModel):
    """Save γ as the run's partition."""

    model_config = ConfigDict(extra="forbid", strict=True)

    gamma: float | None = Field(ge=0, le=1)
    """None: as the histogram proposes it."""


class RemovalRequest(BaseModel):
    """Switch features off in one picture."""

    model_config = ConfigDict(extra="forbid", strict=True)

    features: list[int] = Field(default=[], max_length=MOST_FEATURES)
    """One by one."""

    kept: list[int] = Field(default=[], max_length=MOST_FEATURES)
    """Features that stay although their group goes."""

    group: RemovedGroup = "none"
    """And a whole group."""

    gamma: float = Field(default=0.0, ge=0, le=1)
    """γ as it stands on the page."""

    keep_error: bool = True
    """Whether what the SAE does not explain stays in the tokens."""
