"""Bilinear upsampling of maps as two small matrix products, and its transpose for gradients."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from vitscope.axes import Float


@dataclass(frozen=True)
class Upsampling:
    """From a square grid to a square of pixels, as ``interpolate(…, align_corners=False)``.

    Attributes:
        grid: p, cells per side.
        side: pixels per side.
    """

    grid: int
    side: int

    def __call__(self, maps: Float[Tensor, "K p p C"]) -> Float[Tensor, "K S S C"]:
        """Upsample maps, channels last."""
        return self._apply(maps, _weights(self.grid, self.side, maps.device))

    def transpose(self, pixels: Float[Tensor, "K S S C"]) -> Float[Tensor, "K p p C"]:
        """Return the gradient of the maps, given that of their pixels."""
        return self._apply(pixels, _weights(self.grid, self.side, pixels.device).T)

    @staticmethod
    def _apply(maps: Tensor, weights: Tensor) -> Tensor:
        n, rows, columns, channels = maps.shape
        out = weights.shape[0]
        tall = torch.matmul(weights, maps.reshape(n, rows, columns * channels))
        wide = torch.matmul(weights, tall.reshape(n * out, columns, channels))
        return wide.reshape(n, out, out, channels)


@lru_cache(maxsize=16)
def _weights(grid: int, side: int, device: torch.device) -> Tensor:
    """Share of each cell in each pixel along one axis, [side, grid]."""
    place = ((torch.arange(side, dtype=torch.float64) + 0.5) * grid / side - 0.5).clamp_min(0)
    below = place.floor().long().clamp_max(grid - 1)
    above = (below + 1).clamp_max(grid - 1)
    share = place - below
    weights = torch.zeros(side, grid, dtype=torch.float64)
    rows = torch.arange(side)
    weights.index_put_((rows, below), 1 - share, accumulate=True)
    weights.index_put_((rows, above), share, accumulate=True)
    return weights.float().to(device)
