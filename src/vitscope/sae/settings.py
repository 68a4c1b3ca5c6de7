"""The ``[sae]`` group of a study: which SAE, and how it is trained."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from vitscope.sae.trackers import TrackerName
from vitscope.settings import Settings
from vitscope.tokens.sampling import HeldOutKind

MethodName = Literal["batch-topk", "topk", "relu", "jumprelu", "matryoshka"]


class SweepSettings(Settings):
    """Every combination of these lists is an SAE; an empty list keeps the study's own value."""

    seed: tuple[int, ...] = ()
    """Seeds of the initial weights; the tokens and their order stay those of the study's seed."""

    k: tuple[int, ...] = ()
    """Values of ``sae.k``."""

    expansion: tuple[int, ...] = ()
    """Values of ``sae.expansion``."""

    learning_rate: tuple[float, ...] = ()
    """Values of ``sae.learning_rate``."""

    method: tuple[MethodName, ...] = ()
    """Values of ``sae.method``."""


class SaeSettings(Settings):
    """An SAE to use, or how to train one (protocol, section 2)."""

    path: Path | None = None
    """An SAE to use as it is: a folder or file of any supported format, or
    ``hf:owner/repo[/folder][@revision]``, or ``shipped``, the one that comes with an embedded
    backbone; None trains one."""

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
    """Held-out tokens on which θ is fitted after training [A]."""

    held_out: HeldOutKind = "images"
    """What training never sees and θ is fitted on: whole ``images``; the last ``draw`` on disk of
    every image; ``none`` fits θ on training tokens [A]."""

    held_out_share: float = Field(default=0.05, gt=0, lt=1)
    """Of the images, at most this share is held out; fewer, where ``threshold_tokens`` need
    fewer [A]."""

    evaluate_every: int = Field(default=100, ge=0)
    """Steps between two looks at held-out tokens under a running θ; 0 takes the last step's
    alone."""

    evaluation_tokens: int = Field(default=4096, ge=1)
    """Held-out tokens looked at."""

    patience: int | None = Field(default=None, ge=1)
    """Early stop: after so many looks without a better held-out FVU the rate begins its final
    fall at once; None trains to the end."""

    method: MethodName = "batch-topk"
    """How codes become sparse in training: the B·K largest of the batch [S]; ``topk``, the K
    largest of every token; ``relu`` with an L1 penalty; ``jumprelu``, a learned θ a feature;
    ``matryoshka``, batch-topk whose first features must reconstruct alone, too."""

    l1_coefficient: float = Field(default=3.0, ge=0)
    """``relu``: weight of Σ|code| against Σ‖x − x̂‖² on inputs of mean squared norm d [A]."""

    l0_coefficient: float = Field(default=1.0, ge=0)
    """``jumprelu``: weight of (L0 / K − 1)² against the FVU [A]."""

    jump_bandwidth: float = Field(default=0.2, gt=0)
    """``jumprelu``: width of the window around θ through which θ gets its gradient, in units of
    the normalised inputs [A]."""

    prefixes: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
    """``matryoshka``: shares of the dictionary that must reconstruct alone, ascending to 1 [A]."""

    sweep: SweepSettings = SweepSettings()
    """Several SAEs over one pass of the activations, for ``vitscope train --sweep``."""

    matmul_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What training rounds the factors of its products to; weights, moments and sums are float32
    all the same. ``auto``: bfloat16 for batch-topk on one GPU, float32 elsewhere [A]."""

    checkpoint_every: int = Field(default=250, ge=1)
    """Steps between two checkpoints."""

    log_every: int = Field(default=10, ge=1)
    """Steps between two lines of the metrics log."""

    track: tuple[TrackerName, ...] = ()
    """Where the log's figures go too: ``tensorboard``, ``wandb`` (extra ``track``)."""

    @field_validator("prefixes")
    @classmethod
    def _ascend_to_one(cls, prefixes: tuple[float, ...]) -> tuple[float, ...]:
        ascending = all(a < b for a, b in zip((0.0, *prefixes), prefixes, strict=False))
        if not prefixes or not ascending or prefixes[-1] != 1:
            raise ValueError(f"prefixes must ascend from above 0 to 1 (got {list(prefixes)})")
        return prefixes
