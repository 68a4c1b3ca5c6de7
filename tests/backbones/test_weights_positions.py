"""Position embeddings on another grid, against each library's own way."""

from typing import Any

import pytest
import torch
from tests.backbones.transformers_files import HF_SIZE
from tests.backbones.twins import PATCH, WIDTH
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor
from torch.nn import functional

from vitscope.backbones.settings import PositionMethod
from vitscope.backbones.weights.strict import resample_positions

GRIDS = [(2, 2), (4, 4), (7, 7), (3, 9), (12, 5)]
"""Smaller and larger than the trained 5×5, and no squares."""


def trained(n_prefix: int = 1, side: int = 5) -> Tensor:
    g = torch.Generator().manual_seed(3)
    return torch.randn(1, side * side + n_prefix, WIDTH, generator=g)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("n_prefix", [0, 1, 3])
def test_timms(grid: tuple[int, int], n_prefix: int) -> None:
    expected = resample_abs_pos_embed(trained(n_prefix), list(grid), num_prefix_tokens=n_prefix)
    found = resample_positions(trained(n_prefix), n_prefix, grid, "timm")
    assert torch.equal(found, expected)


def transformers_positions(kind: str, grid: tuple[int, int]) -> Tensor:
    """Return what the embeddings of a transformers model make of the trained positions."""
    from tests.backbones.untyped import transformers

    options: dict[str, Any] = HF_SIZE | {"image_size": 5 * PATCH}
    config = getattr(transformers, f"{kind}Config")(**options)
    embeddings: Any = getattr(transformers, f"{kind}Model")(config).embeddings
    with torch.no_grad():
        embeddings.position_embeddings.copy_(trained())
        tokens = torch.zeros(1, grid[0] * grid[1] + 1, WIDTH)
        return embeddings.interpolate_pos_encoding(tokens, grid[0] * PATCH, grid[1] * PATCH)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(
    ("kind", "method"), [("Dinov2", "bicubic"), ("Dinov2WithRegisters", "timm")]
)
def test_those_of_transformers(kind: str, method: PositionMethod, grid: tuple[int, int]) -> None:
    expected = transformers_positions(kind, grid)
    found = resample_positions(trained(), 1, grid, method)
    assert torch.allclose(found, expected, atol=1e-6)


def cubic(t: float) -> list[float]:
    """Return the weights of the four samples around a point, Keys' kernel with a = -3/4."""
    a = -0.75

    def near(x: float) -> float:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1

    def far(x: float) -> float:
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


def meta_matrix(new: int, old: int) -> Tensor:
    """Return the sampling of one axis: cell centres every old / (new + 0.1)."""
    matrix = torch.zeros(new, old, dtype=torch.float64)
    for row in range(new):
        point = (row + 0.5) * old / (new + 0.1) - 0.5
        first = int(point // 1)
        for offset, weight in zip(range(-1, 3), cubic(point - first), strict=True):
            matrix[row, min(max(first + offset, 0), old - 1)] += weight
    return matrix


@pytest.mark.parametrize("grid", GRIDS)
def test_metas(grid: tuple[int, int]) -> None:
    patches = trained()[0, 1:].double().reshape(5, 5, WIDTH)
    rows, columns = meta_matrix(grid[0], 5), meta_matrix(grid[1], 5)
    expected = torch.einsum("ai,bj,ijd->abd", rows, columns, patches).flatten(0, 1)
    found = resample_positions(trained(), 1, grid, "meta")
    assert torch.allclose(found[0, 1:].double(), expected, atol=1e-5)
    assert torch.equal(found[:, :1], trained()[:, :1])


@pytest.mark.parametrize("new", [16, 17, 24, 32, 37, 38, 43, 64])
def test_metas_scale_gives_the_grid_asked_for(new: int) -> None:
    """From the 37×37 of the released models, whatever floating point makes of (n + 0.1) / 37."""
    found = resample_positions(trained(side=37), 1, (new, new), "meta")
    assert found.shape == (1, new**2 + 1, WIDTH)


@pytest.mark.parametrize("method", ["timm", "bicubic", "meta"])
def test_the_trained_grid_is_left_alone(method: PositionMethod) -> None:
    assert torch.equal(resample_positions(trained(), 1, (5, 5), method), trained())


def test_the_three_ways_differ() -> None:
    """As on smooth embeddings, such as trained ones; otherwise the choice would be idle."""
    waves = torch.linspace(0, 3, 37)
    field = torch.sin(waves)[:, None] * torch.cos(1.7 * waves)[None]
    smooth = field.reshape(1, -1, 1).expand(1, 37**2, WIDTH).contiguous()
    one, two, three = (
        resample_positions(smooth, 0, (16, 16), method) for method in ("timm", "bicubic", "meta")
    )
    for a, b in ((one, two), (one, three), (two, three)):
        assert (a - b).norm() / b.norm() > 1e-3


def test_a_grid_that_is_no_square_is_read_row_by_row() -> None:
    positions = torch.randn(1, 2 * 8, WIDTH)
    found = resample_positions(positions, 0, (4, 8), "bicubic", old_grid=(2, 8))
    image = positions.reshape(1, 2, 8, WIDTH).permute(0, 3, 1, 2)
    expected = functional.interpolate(image, (4, 8), mode="bicubic")
    assert torch.equal(found.reshape(1, 4, 8, WIDTH).permute(0, 3, 1, 2), expected)
