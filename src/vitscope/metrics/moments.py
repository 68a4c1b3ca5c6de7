"""Mean and spread of a set of vectors, from pieces: mergeable float64 sums."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitscope.axes import Float64, Rows


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
