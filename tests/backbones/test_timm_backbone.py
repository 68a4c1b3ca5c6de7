"""The timm adapter against timm itself: hooks on blocks, on the softmax, and the plain forward."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.backbones.pictures import noise_batch
from tests.backbones.tiny_vit import (
    DEPTH,
    HEADS,
    PREPROCESSING,
    SIDE,
    VARIANTS,
    WIDTH,
    tiny_backbone,
)
from torch import Tensor

from vitscope.backbones.adapter import matmul_precision, standardise
from vitscope.backbones.backbone import Backbone, BlockTokens
from vitscope.backbones.settings import Precision
from vitscope.backbones.timm_vit import TimmBackbone
from vitscope.backbones.user_model import check_backbone
from vitscope.errors import BackboneError

IMAGES = noise_batch(3, SIDE)
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_layer = pytest.mark.parametrize("layer", range(1, DEPTH + 1))


@contextmanager
def captured(module: Any, *, what: str) -> Generator[list[Tensor]]:
    """Collect the ``input`` or ``output`` of a module."""
    seen: list[Tensor] = []

    def note(_module: Any, inputs: Any, output: Any) -> None:
        seen.append((inputs[0] if what == "input" else output).detach().clone())

    handle = module.register_forward_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def joined(tokens: BlockTokens) -> Tensor:
    return torch.cat([tokens.prefix, tokens.patch], 1)


def seen_by(backbone: TimmBackbone) -> Tensor:
    return standardise(IMAGES, backbone.site, backbone.preprocessing, backbone.device)


def block_output(backbone: TimmBackbone, layer: int) -> Tensor:
    """Return what timm's own forward pass has after ``layer`` blocks."""
    with torch.inference_mode(), captured(backbone.model.blocks[layer - 1], what="output") as seen:
        backbone.model(seen_by(backbone))
    (output,) = seen
    return output


@every_variant
@every_layer
def test_tokens_are_the_output_of_the_block(variant: str, layer: int) -> None:
    backbone = tiny_backbone(layer, variant)
    tokens = backbone.tokens(IMAGES)
    assert torch.equal(joined(tokens), block_output(backbone, layer))
    assert tokens.patch.shape == (3, 36, WIDTH)
    assert tokens.prefix.shape[1] == backbone.n_prefix == backbone.model.num_prefix_tokens
    for other in (layer - 1, layer + 1):
        if 1 <= other <= DEPTH:
            assert not torch.allclose(joined(tokens), block_output(backbone, other), atol=0.1)


@every_variant
@every_layer
def test_later_blocks_are_not_run(variant: str, layer: int) -> None:
    backbone = tiny_backbone(layer, variant)
    calls: list[int] = []
    for index, block in enumerate(backbone.model.blocks):
        block.register_forward_hook(lambda *_args, index=index: calls.append(index))
    backbone.tokens(IMAGES)
    assert calls == list(range(layer))
    calls.clear()
    backbone.attention(IMAGES)
    assert calls == list(range(layer - 1))
    calls.clear()
    backbone.resume(
        BlockTokens(torch.zeros(1, 36, WIDTH), torch.zeros(1, backbone.n_prefix, WIDTH))
    )
    assert calls == list(range(layer, DEPTH))


@every_variant
@every_layer
def test_attention_is_timms_own_softmax(variant: str, layer: int) -> None:
    backbone = tiny_backbone(layer, variant)
    attention = backbone.attention(IMAGES).patch_rows()
    softmaxes: list[Tensor] = []
    for block in backbone.model.blocks:
        attn: Any = block.attn
        attn.fused_attn = False
        with torch.inference_mode(), captured(attn.attn_drop, what="input") as seen:
            backbone.model(seen_by(backbone))
        softmaxes += seen
    n_prefix = backbone.n_prefix
    assert attention.shape == (3, HEADS, 36, 36 + n_prefix)
    assert (attention - softmaxes[layer - 1][:, :, n_prefix:]).abs().max() <= 1e-6
    torch.testing.assert_close(attention.sum(-1), torch.ones(3, HEADS, 36))
    for other in (layer - 1, layer + 1):
        if 1 <= other <= DEPTH:
            assert (attention - softmaxes[other - 1][:, :, n_prefix:]).abs().max() > 1e-3


@every_variant
@every_layer
def test_resuming_gives_the_plain_forward_pass(variant: str, layer: int) -> None:
    backbone = tiny_backbone(layer, variant)
    final = backbone.resume(backbone.tokens(IMAGES))
    with torch.inference_mode():
        features = backbone.model.forward_features(seen_by(backbone))
        # timm's tokens may lie transposed in memory, where a mean adds in another order
        pooled = backbone.model.forward_head(features.contiguous(), pre_logits=True)
    assert torch.equal(final.patch, features[:, backbone.n_prefix :])
    assert torch.equal(final.pooled, pooled)


def test_resuming_from_edited_tokens_is_not_resuming_from_the_own_ones() -> None:
    backbone = tiny_backbone(2)
    tokens = backbone.tokens(IMAGES)
    edited = replace(tokens, patch=tokens.patch * 0.5)
    assert not torch.allclose(backbone.resume(edited).pooled, backbone.resume(tokens).pooled)


def test_bytes_are_standardised_channel_by_channel() -> None:
    found = seen_by(tiny_backbone(1))
    for channel in range(3):
        mean, std = PREPROCESSING.mean[channel], PREPROCESSING.std[channel]
        expected = (IMAGES[:, channel].double() / 255 - mean) / std
        torch.testing.assert_close(found[:, channel].double(), expected, atol=1e-6, rtol=0)


PRECISIONS: dict[Precision, float] = {"bf16": 3e-2, "fp16": 4e-3}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_half_precision_is_near_full_precision_and_keeps_the_residual_stream_in_fp32(
    precision: Precision,
) -> None:
    full = tiny_backbone(3)
    half = replace(full, precision=precision)
    exact, found = full.tokens(IMAGES), half.tokens(IMAGES)
    assert found.patch.dtype == found.prefix.dtype == torch.float32
    gap = float((found.patch - exact.patch).norm() / exact.patch.norm())
    assert 1e-5 < gap < PRECISIONS[precision]
    rows = half.attention(IMAGES).patch_rows()
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.sum(-1), torch.ones(3, HEADS, 36))
    assert (rows - full.attention(IMAGES).patch_rows()).abs().max() < PRECISIONS[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_resuming_gives_the_plain_forward_pass_in_half_precision(precision: Precision) -> None:
    backbone = replace(tiny_backbone(2), precision=precision)
    final = backbone.resume(backbone.tokens(IMAGES))
    with torch.inference_mode(), matmul_precision(precision, backbone.device):
        features = backbone.model.forward_features(seen_by(backbone))
    assert torch.equal(final.patch, features[:, backbone.n_prefix :])


def test_an_attention_that_is_not_known_is_not_guessed() -> None:
    backbone = tiny_backbone(2)
    block: Any = backbone.model.blocks[1]
    block.attn.__class__ = type("OtherAttention", (type(block.attn),), {})
    assert backbone.tokens(IMAGES).patch.isfinite().all()
    with pytest.raises(BackboneError, match="of a Block with OtherAttention cannot be read"):
        backbone.attention(IMAGES)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(1, 3, SIDE, SIDE + 8, dtype=torch.uint8),
        torch.zeros(1, 3, 2 * SIDE, 2 * SIDE, dtype=torch.uint8),
        torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8),
        torch.zeros(1, 3, SIDE, SIDE),
    ],
)
def test_a_wrong_size_or_type_is_refused(images: Tensor) -> None:
    backbone = tiny_backbone(1)
    for method in (backbone.tokens, backbone.attention):
        with pytest.raises(BackboneError, match=r"tiny-plain takes bytes \[B, 3, 48, 48\], got"):
            method(images)


def test_it_keeps_the_protocol_of_a_backbone() -> None:
    backbone = tiny_backbone(2)
    assert isinstance(backbone, Backbone)
    assert check_backbone(backbone) is backbone
