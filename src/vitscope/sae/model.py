"""The sparse autoencoder as the rest of vitscope sees it: raw activations in and out."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from vitscope.axes import Codes, Float, Int64, Rows
from vitscope.backbones.backbone import Site
from vitscope.errors import SaeError

Info = dict[str, str | float | int]
"""How an SAE was made: plain values, stored in its card."""


@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """A trained BatchTopK SAE under its evaluation threshold θ (protocol, section 2).

    The centring and the scale of training are folded into the weights. Codes are in the units of
    the raw activations: decoder rows have norm 1.

    Attributes:
        w_enc: encoder, one column per feature.
        b_enc: encoder bias, in raw units.
        w_dec: decoder, one unit row per feature.
        b_dec: subtracted before the encoder and added after the decoder.
        threshold: θ; a pre-activation counts only above it, so that a token's code does not
            depend on its batch.
        k: K, the mean number of active features per token in training.
        site: where the activations were read; None where that is not known.
        info: how the SAE was made.

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
            features: indices of the features wanted, in the order wanted.

        Returns:
            ``[N, m]`` or ``[N, F]``: ``relu((x - b_dec) @ w_enc + b_enc)``, zero where ≤ θ.
        """
        return _above(self.pre_activations(x, features), self.threshold)

    def pre_activations(self, x: Rows, features: Int64[Tensor, "F"] | None = None) -> Codes:
        """Return what :meth:`encode` compares with θ: ``(x - b_dec) @ w_enc + b_enc``."""
        if features is None:
            return torch.addmm(self.b_enc, x - self.b_dec, self.w_enc)
        return torch.addmm(self.b_enc[features], x - self.b_dec, self.w_enc[:, features])

    def decode(self, codes: Codes) -> Rows:
        """Return the reconstruction ``[N, d]`` of codes ``[N, m]``, in raw units."""
        if codes.requires_grad:
            return torch.addmm(self.b_dec, codes, self.w_dec)
        # a few of thousands are active: their rows alone, an eighth of the dense product's time
        token, feature = codes.nonzero(as_tuple=True)
        first = torch.searchsorted(token, torch.arange(codes.shape[0], device=codes.device))
        mixed = embedding_bag(
            feature, self.w_dec, first, mode="sum", per_sample_weights=codes[token, feature]
        )
        return mixed + self.b_dec

    def to(self, device: torch.device | str) -> "SparseAutoencoder":
        """Return the same SAE with its tensors on ``device``."""
        return replace(
            self,
            w_enc=self.w_enc.to(device),
            b_enc=self.b_enc.to(device),
            w_dec=self.w_dec.to(device),
            b_dec=self.b_dec.to(device),
        )


def _above(pre: Tensor, threshold: float) -> Tensor:
    # θ ≥ 0, so one threshold is both the ReLU and the cut
    return torch.nn.functional.threshold(pre, threshold, 0.0)
