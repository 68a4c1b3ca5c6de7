"""The ``[sae]`` group of a study: which SAE, and how it is trained."""

from pathlib import Path

from pydantic import Field

from vitscope.settings import Settings


class SaeSettings(Settings):
    """An SAE to use, or how to train one (protocol, section 2)."""

    path: Path | None = None
    """An SAE to use as it is: a folder or file of any supported format, or
    ``hf:owner/repo[/folder][@revision]``; None trains one."""

    expansion: int = Field(default=32, ge=1)
    """Dictionary size over width: m = expansion · d [S]."""

    k: int = Field(default=30, ge=1)
    """K: active features per token, on average over a batch [S]."""

    batch_size: int = Field(default=4096, ge=1)
    """Tokens per step; a source with fewer tokens gives them all."""

    learning_rate: float = Field(default=3e-4, gt=0)
    """Peak rate of Adam, β = (0.9, 0.999); not scaled by m. Small dictionaries bear 1e-3 [A]."""

    warmup_share: float = Field(default=0.05, ge=0, le=1)
    """Share of the steps over which the rate rises linearly from zero [A]."""

    decay_share: float = Field(default=0.2, ge=0, le=1)
    """Share of the steps, at the end, over which the rate falls linearly to zero [A]."""

    epochs: float | None = Field(default=None, gt=0)
    """Passes over the images; each takes new tokens as far as ``activations.draws`` holds some."""

    steps: int | None = Field(default=None, ge=1)
    """Optimiser steps. With ``epochs`` too, the smaller of both; with neither, one epoch or
    1,000 steps, whichever is more [A]."""

    aux_coefficient: float = Field(default=1 / 32, ge=0)
    """Weight of the auxiliary loss that revives dead features; 0 turns it off [A]."""

    aux_k: int | None = Field(default=None, ge=1)
    """Dead features per token that reconstruct the residual; None takes d / 2 [A]."""

    dead_after_tokens: int | None = Field(default=None, ge=1)
    """A feature is dead when it has not fired for so many tokens; None takes a tenth of the
    training's tokens, at most 1,000,000 [A]."""

    statistics_tokens: int = Field(default=65_536, ge=2)
    """Tokens from which the mean and the scale of the inputs are estimated [A]."""

    threshold_tokens: int = Field(default=32_768, ge=1)
    """Tokens on which θ is fitted after training [A]."""

    checkpoint_every: int = Field(default=250, ge=1)
    """Steps between two checkpoints."""

    log_every: int = Field(default=10, ge=1)
    """Steps between two lines of the metrics log."""
