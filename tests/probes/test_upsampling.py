"""Upsampling commutes with a linear layer: logits are upsampled in place of wider features."""

import pytest
import torch

from vitscope.probes.pixels.maps import PixelMaps

SIZES = [(3, 10), (10, 80), (14, 224), (4, 4), (5, 3), (1, 6)]


@pytest.mark.parametrize(("grid", "side"), SIZES)
def test_a_linear_layer_may_come_before_or_after(grid: int, side: int) -> None:
    layer, maps = torch.nn.Linear(6, 9), PixelMaps(grid, side, 1)
    values = torch.randn(4, grid, grid, 6, generator=torch.Generator().manual_seed(grid))
    with torch.no_grad():
        torch.testing.assert_close(maps.upsampled(layer(values)), layer(maps.upsampled(values)))
