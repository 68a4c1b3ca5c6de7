"""Centring and scale of the inputs, and how they are folded into the finished SAE."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vitscope.axes import Float, Rows
from vitscope.errors import SaeError
from vitscope.sae.parameters import Parameters

ROWS_AT_ONCE = 8192
"""Rows widened to float64 at a time."""


@dataclass(frozen=True, eq=False)
class Normalisation:
    """``x_n = (x - mean) · scale``: mean zero, mean squared norm d.

    One scalar for the whole data set, so that the geometry, outlier norms included, is kept
    (protocol, section 2).

    Attributes:
        mean: per dimension.
        scale: √(d / mean ‖x − mean‖²).
    """

    mean: Float[Tensor, "d"]
    scale: float

    def apply(self, x: Rows) -> Rows:
        """Return raw activations ``x`` normalised."""
        return (x - self.mean) * self.scale

    def fold(self, parameters: Parameters) -> Parameters:
        """Return the parameters that do on raw activations what ``parameters`` do on normalised.

        Codes come out divided by the scale. The scale of the encoder's input and that of its
        output cancel, so both weight matrices stay as they are, the decoder's rows unit.
        """
        return Parameters(
            w_enc=parameters.w_enc,
            b_enc=parameters.b_enc / self.scale,
            w_dec=parameters.w_dec,
            b_dec=self.mean + parameters.b_dec / self.scale,
            log_threshold=(
                None
                if parameters.log_threshold is None
                else parameters.log_threshold - math.log(self.scale)
            ),
        )


def fit_normalisation(sample: Rows) -> Normalisation:
    """Estimate mean and scale on ``sample``, in float64.

    Raises:
        SaeError: the sample has NaN or infinity, fewer than two tokens, or does not vary.
    """
    n, width = sample.shape
    if n < 2:
        raise SaeError(f"{n} tokens are too few to train on; give more images or tokens per image")
    mean = sum((part.double().sum(0) for part in sample.split(ROWS_AT_ONCE)), _zeros(sample)) / n
    squares = [(part.double() - mean).square().sum() for part in sample.split(ROWS_AT_ONCE)]
    mean_square = float(torch.stack(squares).sum()) / n
    if not mean_square < float("inf"):
        raise SaeError(
            f"the sample of {n} activations contains NaN or infinity; extract them again in fp32"
        )
    # float32 rounding of equal rows can leave a variance of about eps² · ‖mean‖²
    floor = torch.finfo(torch.float32).eps ** 2 * float(mean.square().sum())
    if mean_square <= floor:
        raise SaeError(f"all {n} sampled activations are equal: there is nothing to learn")
    return Normalisation(mean=mean.to(sample.dtype), scale=(width / mean_square) ** 0.5)


def _zeros(sample: Tensor) -> Tensor:
    return torch.zeros(sample.shape[1], dtype=torch.float64, device=sample.device)
