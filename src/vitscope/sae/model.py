"""The sparse autoencoder as the rest of vitscope sees it: raw activations in and out."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from vitscope.axes import Codes, Float, Int64, Rows
from vitscope.backbones.backbone import Site
from vitscope.errors import SaeError
from vitscope.sae.activation import (
    ABOVE_THRESHOLD,
    Activation,
    activate,
    check_activation,
    looks_at_all,
    moved,
    of_features,
)
from vitscope.sae.token_norm import TokenNorm

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
    activation: Activation = ABOVE_THRESHOLD
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
        check_activation(self.activation, self.k, m)

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
        if features is None or looks_at_all(self.activation):
            codes = self._activated(self.activation, self.pre_activations(x))
            return codes if features is None else codes[:, features]
        some = of_features(self.activation, features)
        return self._activated(some, self.pre_activations(x, features))

    def pre_activations(self, x: Rows, features: Int64[Tensor, "F"] | None = None) -> Codes:
        """Return what :meth:`encode` makes codes of: ``(x - b_dec) @ w_enc + b_enc``."""
        seen = x if self.token_norm is None else self.token_norm.apply(x)
        if features is None:
            return torch.addmm(self.b_enc, seen - self.b_dec, self.w_enc)
        return torch.addmm(self.b_enc[features], seen - self.b_dec, self.w_enc[:, features])

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
            activation=moved(self.activation, device),
        )

    def _activated(self, activation: Activation, pre: Codes) -> Codes:
        return activate(activation, pre, threshold=self.threshold, k=self.k)

    def _mixed(self, codes: Codes) -> Rows:
        if codes.requires_grad:
            return torch.addmm(self.b_dec, codes, self.w_dec)
        # a few of thousands are active: their rows alone, an eighth of the dense product's time
        token, feature = codes.nonzero(as_tuple=True)
        first = torch.searchsorted(token, torch.arange(codes.shape[0], device=codes.device))
        mixed = embedding_bag(
            feature, self.w_dec, first, mode="sum", per_sample_weights=codes[token, feature]
        )
        return mixed + self.b_dec
