"""FVU, L0 and cosine similarity over all tokens and over outlier tokens (protocol, section 3)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vitscope.axes import Bool, Codes, Float64, Rows

GROUPS = ("all", "outlier")

ROUNDING = 1e-24
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
        least = ROUNDING * energy
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
        self._sums = {group: _GroupSums(no_moments(width)) for group in GROUPS}

    def update(self, x: Rows, x_hat: Rows, codes: Codes, outlier_mask: Bool[Tensor, "N"]) -> None:
        """Count the tokens ``x`` ``[N, d]``, their reconstructions, codes ``[N, m]`` and kind."""
        wide, wide_hat = x.detach().double(), x_hat.detach().double()
        squared_error = (wide - wide_hat).square().sum(1)
        # counting the non-zero entries is five times as fast as summing a mask
        active = torch.bincount(codes.nonzero(as_tuple=True)[0], minlength=codes.shape[0])
        cosine = _cosine(wide, wide_hat)
        everything = torch.ones_like(outlier_mask)
        for group, mask in zip(GROUPS, (everything, outlier_mask), strict=True):
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
        for group in GROUPS:
            self._sums[group].merge(other._sums[group])

    def metrics(self) -> ReconstructionMetrics:
        """Return the metrics of the tokens counted so far."""
        mean_of_all = self._sums["all"].moments.mean
        return ReconstructionMetrics(
            **{group: self._sums[group].metrics(mean_of_all) for group in GROUPS}
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
        for group in GROUPS:
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
