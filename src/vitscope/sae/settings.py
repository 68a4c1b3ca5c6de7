"""The ``[sae]`` group of a study: which SAE, how it is trained, and what training minimises."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from vitscope.settings import Settings
from vitscope.tokens.sampling import HeldOutKind

MethodName = Literal["batch-topk", "topk", "relu", "jumprelu", "matryoshka"]
TrackerName = Literal["tensorboard", "wandb"]


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
    """Steps between two evaluations on held-out tokens under a running θ; 0 evaluates after the
    last step alone."""

    evaluation_tokens: int = Field(default=4096, ge=1)
    """Held-out tokens of such an evaluation."""

    patience: int | None = Field(default=None, ge=1)
    """Early stop: after so many evaluations without a better held-out FVU the rate begins its
    final fall at once; None trains to the end."""

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

    step: Literal["torch", "triton"] = "torch"
    """What computes a training step: plain torch operations, on any device; or ``triton``, which
    updates the dictionary by a fused kernel on a CUDA device, top-k methods alone. The kernel has
    run in Triton's interpreter only and was never timed (docs/training.md)."""

    matmul_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What training rounds the factors of the encoder's product to, on a CUDA device; weights,
    moments and sums are float32 all the same. ``auto``: bfloat16 with the step ``triton``, float32
    elsewhere [A]."""

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


_WARMUP_SHARE = 0.1
"""Share of the steps over which a penalty rises linearly to its weight: at once, it would kill
features before they have found anything."""


@dataclass(frozen=True)
class BatchTopK:
    """The B·K largest positive pre-activations of the batch; one θ afterwards."""


@dataclass(frozen=True)
class TokenTopK:
    """The K largest positive pre-activations of every token, in training and afterwards."""


@dataclass(frozen=True)
class ReluL1:
    """Every positive pre-activation, and a penalty ``coefficient · Σ code / (B·d)``.

    Attributes:
        coefficient: its weight; on inputs of mean squared norm d.
    """

    coefficient: float


@dataclass(frozen=True)
class JumpRelu:
    """Every pre-activation above its feature's own θ, which is learned.

    The penalty is ``coefficient · (L0 / K − 1)²``, L0 being the batch's mean. θ gets its gradient
    by a straight-through estimate, a rectangle around θ (Rajamanoharan et al. 2024).

    Attributes:
        coefficient: weight of the penalty.
        bandwidth: width of the rectangle.
    """

    coefficient: float
    bandwidth: float


@dataclass(frozen=True)
class Matryoshka:
    """BatchTopK whose prefixes of the dictionary reconstruct alone, too (Bussmann et al. 2025).

    The loss is the mean over prefixes of their reconstruction losses.

    Attributes:
        ends: features of each prefix, ascending; the last is m.
    """

    ends: tuple[int, ...]


Method = BatchTopK | TokenTopK | ReluL1 | JumpRelu | Matryoshka


@dataclass(frozen=True)
class Objective:
    """What training minimises.

    Attributes:
        k: K; B·K entries of the batch are kept. JumpReLU is pulled to it, ReLU has none.
        aux_k: dead features per token in the auxiliary loss.
        aux_coefficient: its weight.
        method: how codes become sparse; the paper's by default.
    """

    k: int
    aux_k: int
    aux_coefficient: float
    method: Method = field(default_factory=BatchTopK)

    def at(self, progress: float) -> "Objective":
        """Return the objective after a share ``progress`` of the steps: penalties rise at first."""
        method = self.method
        if not isinstance(method, ReluL1 | JumpRelu) or progress >= _WARMUP_SHARE:
            return self
        coefficient = method.coefficient * progress / _WARMUP_SHARE
        return replace(self, method=replace(method, coefficient=coefficient))

    @property
    def has_one_threshold(self) -> bool:
        """Whether the finished SAE cuts at one θ, which is fitted after training."""
        return isinstance(self.method, BatchTopK | Matryoshka)


def objective_of(settings: SaeSettings, width: int) -> Objective:
    """Return what ``settings`` ask to minimise, for activations of ``width``."""
    match settings.method:
        case "batch-topk":
            method = BatchTopK()
        case "topk":
            method = TokenTopK()
        case "relu":
            method = ReluL1(settings.l1_coefficient)
        case "jumprelu":
            method = JumpRelu(settings.l0_coefficient, settings.jump_bandwidth)
        case "matryoshka":
            n_features = settings.expansion * width
            ends = {max(1, round(share * n_features)) for share in settings.prefixes}
            method = Matryoshka(tuple(sorted(ends)))
    aux_k = settings.aux_k or max(1, width // 2)
    return Objective(settings.k, aux_k, settings.aux_coefficient, method)
