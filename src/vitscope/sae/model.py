"""The sparse autoencoder as the rest of vitscope sees it: raw activations in and out.

``codes = activation((token_norm(x) - b_dec) @ w_enc + b_enc)``, and back ``codes @ w_dec + b_dec``.
The activation and the normalisation of tokens are those that published SAEs use.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vitscope.axes import Codes, Float, Int64, Rows
from vitscope.backbones.backbone import Site
from vitscope.errors import SaeError
from vitscope.sae.code import SparseCode


@dataclass(frozen=True)
class AboveThreshold:
    """Everything above the SAE's one scalar θ; θ = 0 is the plain ReLU.

    This is what a BatchTopK SAE does outside training.
    """


@dataclass(frozen=True, eq=False)
class AboveThresholds:
    """JumpReLU: everything above the feature's own θ. A gated SAE is one too, after folding.

    Attributes:
        thresholds: θ per feature, none below 0.

    Raises:
        SaeError: one is negative or not finite.
    """

    thresholds: Float[Tensor, "m"]

    def __post_init__(self) -> None:
        # what lies on an accelerator was checked before it went there: looking again would wait
        if self.thresholds.is_cpu and not bool(
            ((self.thresholds >= 0) & self.thresholds.isfinite()).all()
        ):
            raise SaeError("thresholds must be finite and not negative")


@dataclass(frozen=True)
class TopK:
    """The K largest of every token, with the SAE's own K.

    Attributes:
        signed: keep a negative pre-activation that is among the K largest, as some libraries do;
            otherwise it counts as 0.
    """

    signed: bool = False


@dataclass(frozen=True)
class GroupMax:
    """The largest of each of K equal groups of neighbouring features, with the SAE's own K."""


Activation = AboveThreshold | AboveThresholds | TopK | GroupMax

LAYER_NORM_EPSILON = 1e-5
"""Added to the deviation, not to the variance, by the libraries that train such SAEs."""


@dataclass(frozen=True)
class LayerNorm:
    """Minus the token's mean, over its deviation (of n − 1) plus ε.

    The way back multiplies by the deviation without ε, as those libraries do.
    """

    epsilon: float = LAYER_NORM_EPSILON

    def statistics(self, x: Rows) -> tuple[Float[Tensor, "N 1"], Float[Tensor, "N 1"]]:
        """Return what was subtracted from each token, and what its codes are multiplied by."""
        return x.mean(-1, keepdim=True), x.std(-1, keepdim=True)

    def apply(self, x: Rows) -> Rows:
        """Return raw tokens ``x`` normalised."""
        shift, scale = self.statistics(x)
        return (x - shift) / (scale + self.epsilon)


@dataclass(frozen=True)
class ConstantNorm:
    """Every token scaled to the norm √d."""

    def statistics(self, x: Rows) -> tuple[Float[Tensor, "N 1"], Float[Tensor, "N 1"]]:
        """Return what was subtracted from each token, and what its codes are multiplied by."""
        scale = x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
        return scale.new_zeros(scale.shape), scale

    def apply(self, x: Rows) -> Rows:
        """Return raw tokens ``x`` normalised."""
        _, scale = self.statistics(x)
        return x / scale.clamp_min(torch.finfo(x.dtype).tiny)  # a token of zeros stays one


TokenNorm = LayerNorm | ConstantNorm

Info = dict[str, str | float | int]
"""How an SAE was made: plain values, stored in its card."""


@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """A trained SAE: vitscope's own, or anyone's after import (protocol, section 2).

    Whatever was done to the inputs in training is folded into the weights as far as it is affine.
    In vitscope's own SAEs decoder rows have norm 1, so that codes are in the units of the raw
    activations; an imported SAE keeps the codes that its own library computes.

    Attributes:
        w_enc: encoder, one column per feature.
        b_enc: encoder bias, in raw units.
        w_dec: decoder, one row per feature.
        b_dec: subtracted before the encoder and added after the decoder.
        threshold: θ of an ``AboveThreshold``; a pre-activation counts only above it, so that a
            token's code does not depend on its batch. Not used by the other activations.
        k: K, the mean number of active features per token in training; 0 where there is none.
        site: where the activations were read; None where that is not known.
        info: how the SAE was made.
        activation: how pre-activations become codes.
        token_norm: what is done to every token first; None for nothing.

    Raises:
        SaeError: the tensors' shapes do not fit each other, or θ is negative or not finite.
    """

    w_enc: Float[Tensor, "d m"]
    b_enc: Float[Tensor, "m"]
    w_dec: Float[Tensor, "m d"]
    b_dec: Float[Tensor, "d"]
    threshold: float
    k: int
    site: Site | None = None
    info: Info = field(default_factory=dict[str, str | float | int])
    activation: Activation = field(default_factory=AboveThreshold)
    token_norm: TokenNorm | None = None

    def __post_init__(self) -> None:
        if self.w_dec.ndim != 2 or 0 in self.w_dec.shape:
            raise SaeError(
                f"w_dec has shape {list(self.w_dec.shape)}; expected [features, width], neither 0"
            )
        m, d = self.w_dec.shape
        for name, expected in (("w_enc", (d, m)), ("b_enc", (m,)), ("b_dec", (d,))):
            actual = tuple(getattr(self, name).shape)
            if actual != expected:
                raise SaeError(
                    f"{name} has shape {list(actual)}; with w_dec of shape [{m}, {d}] "
                    f"it must be {list(expected)}"
                )
        if not 0 <= self.threshold < float("inf"):
            raise SaeError(f"threshold is {self.threshold}; it must be finite and not negative")
        _check_activation(self.activation, self.k, m)

    @property
    def width(self) -> int:
        """d, the width of the activations."""
        return self.w_dec.shape[1]

    @property
    def n_features(self) -> int:
        """m, the size of the dictionary."""
        return self.w_dec.shape[0]

    def encode(self, x: Rows, features: Int64[Tensor, "F"] | None = None) -> Codes:
        """Return the codes of raw activations ``x``, of all m features or of ``features`` alone.

        Args:
            x: raw activations ``[N, d]``.
            features: indices of the features wanted, in the order wanted. Where a feature's code
                depends on the others (top-k), all are computed and these are taken.

        Returns:
            ``[N, m]`` or ``[N, F]``: for vitscope's own SAEs
            ``relu((x - b_dec) @ w_enc + b_enc)``, zero where ≤ θ.
        """
        whole = isinstance(self.activation, TopK | GroupMax)  # a code depends on all features
        codes = self._activated(
            self.pre_activations(x, None if whole else features), None if whole else features
        )
        return codes[:, features] if whole and features is not None else codes

    def pre_activations(self, x: Rows, features: Int64[Tensor, "F"] | None = None) -> Codes:
        """Return what :meth:`encode` makes codes of: ``(x - b_dec) @ w_enc + b_enc``."""
        seen = x if self.token_norm is None else self.token_norm.apply(x)
        if features is None:
            return torch.addmm(self.b_enc, seen - self.b_dec, self.w_enc)
        return torch.addmm(self.b_enc[features], seen - self.b_dec, self.w_enc[:, features])

    def margins(self, x: Rows, features: Int64[Tensor, "F"]) -> Codes:
        """Return how near each feature is to firing: its pre-activation over what it must exceed.

        Args:
            x: raw activations ``[N, d]``.
            features: indices of the features wanted, in the order wanted.

        Returns:
            ``[N, F]``: 1 at the threshold, more where the feature fires. What must be exceeded is
            θ; the feature's own θ; for a top-k the token's K-th largest pre-activation; the largest
            of the feature's group. NaN where that is not above 0, as under a plain ReLU, so that
            there is no scale.
        """
        whole = isinstance(self.activation, TopK | GroupMax)
        pre = self.pre_activations(x, None if whole else features)
        match self.activation:
            case AboveThreshold():
                bar = pre.new_full((1, 1), self.threshold)
            case AboveThresholds(thresholds):
                bar = thresholds[features].to(pre.dtype)[None]
            case TopK():
                bar = pre.topk(self.k, -1).values[:, -1:]
            case GroupMax():
                highest = pre.unflatten(-1, (self.k, -1)).amax(-1)
                bar = highest[:, features // (self.n_features // self.k)]
        mine = pre[:, features] if whole else pre
        return torch.where(bar > 0, mine / bar, torch.nan)

    def decode(self, codes: Codes, like: Rows | None = None) -> Rows:
        """Return the reconstruction ``[N, d]`` of codes ``[N, m]``, in raw units.

        Args:
            codes: as of :meth:`encode`, or edited.
            like: the raw activations ``[N, d]`` that were encoded. Needed where every token was
                normalised by itself, as that has to be undone; otherwise without effect.

        Raises:
            SaeError: ``like`` is needed and not given.
        """
        mixed = self._mixed(codes)
        if self.token_norm is None:
            return mixed
        if like is None:
            raise SaeError(
                "this SAE normalises every token by itself, which only the tokens can undo; call "
                "decode(codes, like=tokens)"
            )
        shift, scale = self.token_norm.statistics(like)
        return mixed * scale + shift

    def output_scale(self, x: Rows) -> Float[Tensor, "N 1"]:
        """Return what a code of each raw token is multiplied by to be in raw units.

        A feature's contribution to a reconstruction is ``scale * code * w_dec[feature]``. 1 for
        every SAE that does not normalise tokens.
        """
        if self.token_norm is None:
            return x.new_ones(x.shape[0], 1)
        return self.token_norm.statistics(x)[1]

    def to(self, device: torch.device | str) -> "SparseAutoencoder":
        """Return the same SAE with its tensors on ``device``."""
        return replace(
            self,
            w_enc=self.w_enc.to(device),
            b_enc=self.b_enc.to(device),
            w_dec=self.w_dec.to(device),
            b_dec=self.b_dec.to(device),
            activation=(
                AboveThresholds(self.activation.thresholds.to(device))
                if isinstance(self.activation, AboveThresholds)
                else self.activation
            ),
        )

    def _activated(self, pre: Codes, features: Int64[Tensor, "F"] | None) -> Codes:
        """Return the codes of ``pre``, which is of ``features``, or of all where that is None."""
        match self.activation:
            case AboveThreshold():
                # θ ≥ 0, so one threshold is both the ReLU and the cut
                return torch.nn.functional.threshold(pre, self.threshold, 0.0)
            case AboveThresholds(thresholds):
                own = thresholds if features is None else thresholds[features]
                return torch.where(pre > own, pre, 0.0)
            case TopK(signed):
                values, indices = (pre if signed else pre.relu()).topk(self.k, -1, sorted=False)
                return torch.zeros_like(pre).scatter(-1, indices, values)
            case GroupMax():
                groups = pre.relu().unflatten(-1, (self.k, -1))
                values, indices = groups.max(-1, keepdim=True)
                return torch.zeros_like(groups).scatter(-1, indices, values).flatten(-2)

    def _mixed(self, codes: Codes) -> Rows:
        if codes.requires_grad:
            return torch.addmm(self.b_dec, codes, self.w_dec)
        # a few of thousands are active: their rows alone, an eighth of the dense product's time
        return SparseCode.from_dense(codes).decode(self.w_dec) + self.b_dec


def _check_activation(activation: Activation, k: int, n_features: int) -> None:
    match activation:
        case AboveThreshold():
            return
        case AboveThresholds(thresholds):
            if tuple(thresholds.shape) != (n_features,):
                raise SaeError(
                    f"thresholds has shape {list(thresholds.shape)}; with {n_features} features it "
                    f"must be [{n_features}]"
                )
        case TopK() | GroupMax():
            if not 1 <= k <= n_features:
                raise SaeError(f"k is {k}; with {n_features} features it must be 1 to {n_features}")
            if isinstance(activation, GroupMax) and n_features % k:
                raise SaeError(f"{n_features} features cannot be cut into k = {k} equal groups")
