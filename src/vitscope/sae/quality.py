"""What an SAE does over many tokens: how well it reconstructs, and how often each feature fires.

Both are sums that batches, shards and ranks merge in any order: FVU, L0 and cosine similarity over
all tokens and over outlier tokens (protocol, section 3), and activity on outlier and other tokens.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vitscope.axes import Bool, Codes, Float, Float64, Int64, Rows
from vitscope.sae.code import SparseCode

TOKEN_GROUPS = ("all", "outlier")

TOKEN_KINDS: tuple[str, ...] = ("other", "outlier")
"""As files name them; ``other`` is every other token."""

_ROUNDING = 1e-24
"""A spread below this share of Σ‖x‖² is float64 rounding of equal tokens, that is, none: two
float32 tokens that differ at all are further apart."""


@dataclass(frozen=True)
class GroupMetrics:
    """How well one group of tokens is reconstructed; NaN where the group is empty.

    Attributes:
        n: tokens of the group.
        fvu: Σ‖x − x̂‖² / Σ‖x − μ‖², μ the per-dimension mean over *all* evaluated tokens. NaN too
            where the tokens are all equal, so that nothing varies.
        fvu_own_mean: the same about the group's own mean.
        fvu_uncentred: the same about the origin.
        l0: mean number of active features per token.
        cosine: mean of cos(x, x̂); a token counts 0 where either is the zero vector.
    """

    n: int
    fvu: float
    fvu_own_mean: float
    fvu_uncentred: float
    l0: float
    cosine: float


@dataclass(frozen=True)
class ReconstructionMetrics:
    """Table 6: all patch tokens (A) and outlier tokens (O)."""

    all: GroupMetrics
    outlier: GroupMetrics


@dataclass(eq=False)
class Moments:
    """Count, mean, and summed squared distance to that mean.

    The centred sum is carried instead of Σ‖x‖², and pieces are merged by the formula of Chan,
    Golub and LeVeque (1979): where the mean is large against the spread (outlier tokens nearly
    share one direction) Σ‖x‖² − n‖mean‖² would lose the digits that FVU is made of.

    Attributes:
        n: number of vectors.
        mean: their mean; zeros where there are none.
        spread: Σ‖x − mean‖².
    """

    n: int
    mean: Float64[Tensor, "d"]
    spread: float

    @classmethod
    def of(cls, x: Rows) -> "Moments":
        """Return the moments of the rows of ``x``."""
        rows = x.detach().double()
        mean = rows.mean(0) if rows.shape[0] else rows.new_zeros(rows.shape[1])
        return cls(rows.shape[0], mean.cpu(), float((rows - mean).square().sum()))

    def merge(self, other: "Moments") -> None:
        """Take in the vectors of ``other``."""
        n = self.n + other.n
        if other.n == 0:
            return
        step = other.mean - self.mean
        self.spread += other.spread + float(step.square().sum()) * self.n * other.n / n
        self.mean = self.mean + step * (other.n / n)
        self.n = n

    def spread_about(self, point: Float64[Tensor, "d"]) -> float:
        """Return Σ‖x − point‖²."""
        return self.spread + self.n * float((self.mean - point).square().sum())


def no_moments(width: int) -> Moments:
    """Return the moments of no vector of ``width`` dimensions."""
    return Moments(0, torch.zeros(width, dtype=torch.float64), 0.0)


@dataclass(eq=False)
class _GroupSums:
    moments: Moments
    squared_error: float = 0.0
    active: int = 0
    cosine: float = 0.0

    def merge(self, other: "_GroupSums") -> None:
        self.moments.merge(other.moments)
        self.squared_error += other.squared_error
        self.active += other.active
        self.cosine += other.cosine

    def metrics(self, mean_of_all: Float64[Tensor, "d"]) -> GroupMetrics:
        n, energy = self.moments.n, self.moments.spread_about(torch.zeros_like(mean_of_all))
        least = _ROUNDING * energy
        return GroupMetrics(
            n=n,
            fvu=_ratio(self.squared_error, self.moments.spread_about(mean_of_all), least),
            fvu_own_mean=_ratio(self.squared_error, self.moments.spread, least),
            fvu_uncentred=_ratio(self.squared_error, energy, least),
            l0=_ratio(self.active, n),
            cosine=_ratio(self.cosine, n),
        )


class ReconstructionSums:
    """Float64 sums behind :class:`ReconstructionMetrics`, for any order and split of the tokens."""

    def __init__(self, width: int) -> None:
        self._sums = {group: _GroupSums(no_moments(width)) for group in TOKEN_GROUPS}

    def update(self, x: Rows, x_hat: Rows, codes: Codes, outlier_mask: Bool[Tensor, "N"]) -> None:
        """Count the tokens ``x`` ``[N, d]``, their reconstructions, codes ``[N, m]`` and kind."""
        wide, wide_hat = x.detach().double(), x_hat.detach().double()
        squared_error = (wide - wide_hat).square().sum(1)
        # counting the non-zero entries is five times as fast as summing a mask
        active = torch.bincount(codes.nonzero(as_tuple=True)[0], minlength=codes.shape[0])
        cosine = _cosine(wide, wide_hat)
        everything = torch.ones_like(outlier_mask)
        for group, mask in zip(TOKEN_GROUPS, (everything, outlier_mask), strict=True):
            self._sums[group].merge(
                _GroupSums(
                    Moments.of(wide[mask]),
                    float(squared_error[mask].sum()),
                    int(active[mask].sum()),
                    float(cosine[mask].sum()),
                )
            )

    def merge(self, other: "ReconstructionSums") -> None:
        """Take in the tokens that ``other`` has counted."""
        for group in TOKEN_GROUPS:
            self._sums[group].merge(other._sums[group])

    def metrics(self) -> ReconstructionMetrics:
        """Return the metrics of the tokens counted so far."""
        mean_of_all = self._sums["all"].moments.mean
        return ReconstructionMetrics(
            **{group: self._sums[group].metrics(mean_of_all) for group in TOKEN_GROUPS}
        )

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the sums by name, for the disk."""
        tensors: dict[str, Tensor] = {}
        for group, sums in self._sums.items():
            tensors[f"reconstruction.{group}.counts"] = torch.tensor([sums.moments.n, sums.active])
            tensors[f"reconstruction.{group}.mean"] = sums.moments.mean
            tensors[f"reconstruction.{group}.sums"] = torch.tensor(
                [sums.moments.spread, sums.squared_error, sums.cosine], dtype=torch.float64
            )
        return tensors

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "ReconstructionSums":
        """Return what :meth:`to_tensors` was called on; other names are ignored."""
        restored = cls(tensors["reconstruction.all.mean"].numel())
        for group in TOKEN_GROUPS:
            n, active = (int(value) for value in tensors[f"reconstruction.{group}.counts"])
            spread, squared_error, cosine = (
                float(value) for value in tensors[f"reconstruction.{group}.sums"]
            )
            moments = Moments(n, tensors[f"reconstruction.{group}.mean"], spread)
            restored._sums[group] = _GroupSums(moments, squared_error, active, cosine)
        return restored


def _cosine(x: Float64[Tensor, "N d"], x_hat: Float64[Tensor, "N d"]) -> Float64[Tensor, "N"]:
    norms = x.norm(dim=1) * x_hat.norm(dim=1)
    return torch.where(norms > 0, (x * x_hat).sum(1) / norms, 0.0)


def _ratio(above: float, below: float, least: float = 0.0) -> float:
    return above / below if below > least else math.nan


class FeatureActivity:
    """How often and how strongly each feature fires, and how much it adds: sums over tokens.

    Tokens come in any order and split. A feature fires where its activation is above 0; where it is
    below, as a signed top-k allows, it adds to a token all the same. Means over no token, or over
    no firing, are NaN; the maximum of a feature that never fired is 0.

    Attributes:
        n_tokens: tokens counted, by kind.
        count: ``[m]`` by kind: tokens on which the feature is active.
        total: ``[m]`` by kind: sum of its activations.
        maximum: ``[m]``: its largest activation on any token.
        nonzero: ``[m]``: tokens to which the feature adds anything.
        squares: ``[m]``: sum of its squared activations.
    """

    def __init__(self, n_features: int) -> None:
        self.n_tokens = dict.fromkeys(TOKEN_KINDS, 0)
        self.count = {kind: _zeros(n_features, torch.int64) for kind in TOKEN_KINDS}
        self.total = {kind: _zeros(n_features, torch.float64) for kind in TOKEN_KINDS}
        self.maximum = _zeros(n_features, torch.float64)
        self.nonzero = _zeros(n_features, torch.int64)
        self.squares = _zeros(n_features, torch.float64)

    @property
    def n_features(self) -> int:
        """m."""
        return self.maximum.numel()

    def update(self, codes: Codes, outlier_mask: Bool[Tensor, "N"]) -> None:
        """Count tokens with ``codes`` ``[N, m]``; only the non-zero entries are widened."""
        active = SparseCode.from_dense(codes.detach())
        self.nonzero += torch.bincount(active.features, minlength=self.n_features).cpu()
        self.squares.index_add_(0, active.features.cpu(), active.values.double().square().cpu())
        fired = active.take(active.values > 0)
        features, values = fired.features.cpu(), fired.values.double().cpu()
        is_outlier, n_outliers = outlier_mask[fired.rows].cpu(), int(outlier_mask.sum())
        for kind, mask, n in (
            ("other", ~is_outlier, codes.shape[0] - n_outliers),
            ("outlier", is_outlier, n_outliers),
        ):
            self.n_tokens[kind] += n
            self.count[kind] += torch.bincount(features[mask], minlength=self.n_features)
            self.total[kind].index_add_(0, features[mask], values[mask])
        self.maximum.scatter_reduce_(0, features, values, "amax")

    def merge(self, other: "FeatureActivity") -> None:
        """Take in the tokens that ``other`` has counted."""
        for kind in TOKEN_KINDS:
            self.n_tokens[kind] += other.n_tokens[kind]
            self.count[kind] += other.count[kind]
            self.total[kind] += other.total[kind]
        self.maximum = torch.maximum(self.maximum, other.maximum)
        self.nonzero += other.nonzero
        self.squares += other.squares

    def density(self) -> Float64[Tensor, "m"]:
        """Share of all tokens on which each feature is active."""
        return self._fires().double() / sum(self.n_tokens.values())

    def density_on(self, kind: str) -> Float64[Tensor, "m"]:
        """Share of the ``other`` or ``outlier`` tokens on which each feature is active."""
        return self.count[kind].double() / self.n_tokens[kind]

    def mean_active(self) -> Float64[Tensor, "m"]:
        """Mean activation over the tokens on which each feature is active."""
        return (self.total["other"] + self.total["outlier"]) / self._fires()

    def mean_on(self, kind: str) -> Float64[Tensor, "m"]:
        """Mean activation over all ``other`` or ``outlier`` tokens, silent ones included."""
        return self.total[kind] / self.n_tokens[kind]

    def energy(self, w_dec: Float[Tensor, "m d"]) -> Float64[Tensor, "m"]:
        """Σ a²·‖d‖² of each feature per token: the mean square of what it adds."""
        norms = w_dec.detach().cpu().double().square().sum(1)
        return self.squares * norms / max(sum(self.n_tokens.values()), 1)

    def contribution_rate(self) -> Float64[Tensor, "m"]:
        """Share of all tokens to which each feature adds anything."""
        return self.nonzero.double() / max(sum(self.n_tokens.values()), 1)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the sums by name, for the disk."""
        tensors = {
            f"activity.{name}": getattr(self, name).clone()
            for name in ("maximum", "nonzero", "squares")
        }
        for kind in TOKEN_KINDS:
            tensors[f"activity.{kind}.n_tokens"] = torch.tensor(self.n_tokens[kind])
            tensors[f"activity.{kind}.count"] = self.count[kind].clone()
            tensors[f"activity.{kind}.total"] = self.total[kind].clone()
        return tensors

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "FeatureActivity":
        """Return what :meth:`to_tensors` was called on; other names are ignored."""
        restored = cls(tensors["activity.maximum"].numel())
        for name in ("maximum", "nonzero", "squares"):
            setattr(restored, name, tensors[f"activity.{name}"].clone())
        for kind in TOKEN_KINDS:
            restored.n_tokens[kind] = int(tensors[f"activity.{kind}.n_tokens"])
            restored.count[kind] = tensors[f"activity.{kind}.count"].clone()
            restored.total[kind] = tensors[f"activity.{kind}.total"].clone()
        return restored

    def _fires(self) -> Int64[Tensor, "m"]:
        return self.count["other"] + self.count["outlier"]


def _zeros(n: int, dtype: torch.dtype) -> Tensor:
    return torch.zeros(n, dtype=dtype)
