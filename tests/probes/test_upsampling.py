"""Upsampling is torch's bilinear one, and commutes with a linear layer."""

import pytest
import torch

from vitscope.probes.upsampling import Upsampling

SIZES = [(3, 10), (10, 80), (14, 224), (4, 4), (5, 3), (1, 6)]


def maps(grid: int, channels: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(grid)
    return torch.randn(4, grid, grid, channels, generator=g)


def by_torch(values: torch.Tensor, side: int) -> torch.Tensor:
    first = values.permute(0, 3, 1, 2)
    large = torch.nn.functional.interpolate(first, (side, side), mode="bilinear")
    return large.permute(0, 2, 3, 1)


@pytest.mark.parametrize(("grid", "side"), SIZES)
def test_it_is_torchs_interpolation_and_its_gradient(grid: int, side: int) -> None:
    values = maps(grid, 3).requires_grad_()
    expected = by_torch(values, side)
    upsampling = Upsampling(grid, side)
    torch.testing.assert_close(upsampling(values), expected)
    of_pixels = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(expected, values, of_pixels)
    torch.testing.assert_close(upsampling.transpose(of_pixels), gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("grid", "side"), SIZES)
def test_a_linear_layer_may_come_before_or_after(grid: int, side: int) -> None:
    layer = torch.nn.Linear(6, 9)
    with torch.no_grad():
        before = Upsampling(grid, side)(layer(maps(grid, 6)))
        after = layer(by_torch(maps(grid, 6), side))
    torch.testing.assert_close(before, after)
