"""Removal inside the forward pass of models of `transformers`, against hooks set by hand."""

from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.backbones.parity_folders import DEPTH, SIDE, WIDTH, load, save_tiny
from tests.backbones.pictures import noise_batch
from torch import Tensor
from torch.nn.functional import normalize

from vitscope.backbones.transformers_vit import TransformersBackbone
from vitscope.removal.backbone import RemovedBackbone, removed
from vitscope.sae.model import SparseAutoencoder

M = 96
GROUP = list(range(0, M, 3))
PREFIX = {"clip": 1, "dinov2-registers": 4, "siglip": 0, "dinov3": 3}
"""Model -> class and register tokens: as its configuration has them, not as the adapter counts."""

BLOCKS = {
    "clip": attrgetter("encoder.layers"),
    "siglip": attrgetter("encoder.layers"),
    "dinov2-registers": attrgetter("encoder.layer"),
    "dinov3": attrgetter("model.layer"),
}
IMAGES = noise_batch(2, SIDE)
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_tiny(name, tmp_path_factory.mktemp("tiny") / name) for name in PREFIX}


def dictionary() -> SparseAutoencoder:
    g = torch.Generator().manual_seed(0)
    rows = normalize(torch.randn(M, WIDTH, generator=g), dim=1)
    bias = 0.1 * torch.randn(M, generator=g)
    return SparseAutoencoder(rows.T.contiguous(), bias, rows, torch.zeros(WIDTH), 0.2, 8)


def without_group(sae: SparseAutoencoder, rows: Tensor) -> Tensor:
    """x - Σ a_j d_j over the group, densely."""
    codes = (rows - sae.b_dec) @ sae.w_enc + sae.b_enc
    codes = torch.where(codes > sae.threshold, codes, 0.0)
    return rows - codes[..., GROUP] @ sae.w_dec[GROUP]


@torch.inference_mode()
def by_hand(backbone: TransformersBackbone, name: str, layer: int) -> tuple[Any, list[Tensor]]:
    """Run the model's own forward with a block edited by hand; return it and all blocks' output."""
    sae, n_prefix = dictionary(), PREFIX[name]
    blocks = BLOCKS[name](backbone.model)
    seen: list[Tensor] = []

    def edit(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        return torch.cat([output[:, :n_prefix], without_group(sae, output[:, n_prefix:])], 1)

    handles = [blocks[layer - 1].register_forward_hook(edit)]
    handles += [
        block.register_forward_hook(lambda _m, _i, out: seen.append(out)) for block in blocks
    ]
    output = forward(backbone)
    for handle in handles:
        handle.remove()
    return output, seen


def forward(backbone: TransformersBackbone) -> Any:
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (backbone.preprocessing.mean, backbone.preprocessing.std)
    )
    return backbone.model((IMAGES.float() / 255 - mean) / std)


@pytest.mark.parametrize("name", PREFIX)
@pytest.mark.parametrize("layer", range(1, DEPTH + 1))
@torch.inference_mode()
def test_the_forward_pass_runs_on_without_the_group(
    folders: dict[str, Path], name: str, layer: int
) -> None:
    backbone, n_prefix, sae = load(folders[name], layer), PREFIX[name], dictionary()
    plain, untouched = backbone.tokens(IMAGES), forward(backbone)
    expected, blocks = by_hand(backbone, name, layer)
    with removed(backbone, sae, GROUP):
        inside = backbone.tokens(IMAGES)
        resumed = backbone.resume(inside)
        own = forward(backbone)
    assert inside.prefix.shape[1] == n_prefix
    assert torch.equal(inside.prefix, plain.prefix), "class and register tokens are not edited"
    torch.testing.assert_close(inside.patch, without_group(sae, plain.patch), **CLOSE)
    torch.testing.assert_close(inside.patch, blocks[layer - 1][:, n_prefix:], **CLOSE)
    assert float((inside.patch - plain.patch).abs().max()) > 0.1, "something was removed"
    # the model's own forward, and the later blocks of the adapter
    torch.testing.assert_close(own.last_hidden_state, expected.last_hidden_state, **CLOSE)
    torch.testing.assert_close(own.pooler_output, expected.pooler_output, **CLOSE)
    torch.testing.assert_close(resumed.pooled, expected.pooler_output, **CLOSE)
    if layer < DEPTH or name == "siglip":  # CLS sees the edit through later attention or pooling
        assert not torch.allclose(resumed.pooled, untouched.pooler_output, rtol=1e-3)
    else:
        torch.testing.assert_close(resumed.pooled, untouched.pooler_output, **CLOSE)
    wrapped = RemovedBackbone(backbone, sae, GROUP)
    assert torch.equal(wrapped.tokens(IMAGES).patch, inside.patch)
    assert torch.equal(wrapped.resume(wrapped.tokens(IMAGES)).pooled, resumed.pooled)
    assert torch.equal(forward(backbone).pooler_output, untouched.pooler_output)  # hooks are gone
