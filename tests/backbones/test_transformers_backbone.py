"""The adapter of `transformers` against its models' own forward passes; and what it refuses."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.backbones.parity_comparison import TOLERANCE, WIDE, largest_difference, relative_error
from tests.backbones.parity_folders import DEPTH, HEADS, PATCH, SAVED, SIDE, WIDTH, save_tiny
from tests.backbones.pictures import noise_batch
from tests.backbones.untyped import transformers
from torch import Tensor

from vitscope.backbones.adapter import matmul_precision
from vitscope.backbones.backbone import Backbone, BlockTokens
from vitscope.backbones.settings import BackboneSettings, Precision
from vitscope.backbones.transformers_loading import load_transformers
from vitscope.backbones.transformers_vit import TransformersBackbone
from vitscope.backbones.user_model import check_backbone

IMAGES = noise_batch(2, SIDE)
CPU = torch.device("cpu")
Load = Callable[..., TransformersBackbone]

every_model = pytest.mark.parametrize("name", SAVED)
every_layer = pytest.mark.parametrize("layer", range(1, DEPTH + 1))
one_of_each = pytest.mark.parametrize(
    "name", ["clip", "siglip", "dinov2", "dinov2-registers", "dinov3", "vit"]
)


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    folders: dict[str, Path] = {}

    def from_folder(name: str, layer: int = 2, **settings: Any) -> TransformersBackbone:
        if name not in folders:
            folders[name] = save_tiny(name, tmp_path_factory.mktemp("tiny") / name)
        source = str(folders[name])
        chosen = BackboneSettings(name=f"transformers:{source}", layer=layer, **settings)
        return load_transformers(source, chosen, CPU)

    return from_folder


def pixels_of(backbone: TransformersBackbone, images: Tensor = IMAGES) -> Tensor:
    """Standardise independently of the adapter."""
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (backbone.preprocessing.mean, backbone.preprocessing.std)
    )
    return (images.float() / 255 - mean) / std


@torch.inference_mode()
def own_forward(backbone: TransformersBackbone, images: Tensor = IMAGES, **options: Any) -> Any:
    return backbone.model(pixels_of(backbone, images), output_hidden_states=True, **options)


def joined(tokens: BlockTokens) -> Tensor:
    return torch.cat([tokens.prefix, tokens.patch], 1)


@every_model
@every_layer
def test_tokens_are_the_models_own_after_exactly_so_many_blocks(
    load: Load, name: str, layer: int
) -> None:
    backbone = load(name, layer)
    hidden = own_forward(backbone).hidden_states
    calls: list[int] = []
    for index, block in enumerate(backbone.family.blocks_of(backbone.model)):
        block.register_forward_hook(lambda *_args, index=index: calls.append(index))
    tokens = backbone.tokens(IMAGES)
    assert calls == list(range(layer))
    assert torch.equal(joined(tokens), hidden[layer])
    assert tokens.patch.shape == (2, (SIDE // PATCH) ** 2, WIDTH)
    for other in {layer - 1, layer + 1} & set(range(DEPTH + 1)):
        assert relative_error(joined(tokens), hidden[other]) > WIDE


@every_model
@every_layer
def test_attention_is_the_models_own(load: Load, name: str, layer: int) -> None:
    backbone = load(name, layer)
    attention = backbone.attention(IMAGES)
    backbone.model.set_attn_implementation("eager")
    with torch.inference_mode():
        own = backbone.model(pixels_of(backbone), output_attentions=True).attentions
    rows = attention.rows(torch.arange(attention.n_tokens))
    assert rows.shape[1] == HEADS and rows.dtype == torch.float32
    assert largest_difference(rows, own[layer - 1]) <= TOLERANCE
    for other in {layer - 2, layer} & set(range(DEPTH)):
        assert largest_difference(rows, own[other]) > WIDE
    assert largest_difference(rows, rows.transpose(-1, -2)) > WIDE  # q and k are not swapped


@every_model
@every_layer
@torch.inference_mode()
def test_resuming_unmodified_gives_the_models_own_outputs_bit_for_bit(
    load: Load, name: str, layer: int
) -> None:
    backbone = load(name, layer)
    final, own = backbone.resume(backbone.tokens(IMAGES)), own_forward(backbone)
    expected = own.last_hidden_state
    if name.startswith("clip"):
        expected = backbone.model.post_layernorm(expected)  # CLIP returns it without
    assert torch.equal(final.patch, expected[:, backbone.n_prefix :])
    pooled = {
        "siglip-headless": own.last_hidden_state.mean(1),
        "vit": own.last_hidden_state[:, 0],
        "vit-classifier": own.last_hidden_state[:, 0],
    }
    assert torch.equal(final.pooled, pooled.get(name, own.pooler_output))


@one_of_each
def test_it_keeps_the_protocol(load: Load, name: str) -> None:
    backbone = load(name)
    assert isinstance(backbone, Backbone)
    assert check_backbone(backbone) is backbone
    assert not backbone.model.training
    tokens = backbone.tokens(IMAGES)
    edited = replace(tokens, patch=tokens.patch.flip(-1))
    gap = relative_error(backbone.resume(edited).pooled, backbone.resume(tokens).pooled)
    assert gap > WIDE
    attention = backbone.attention(IMAGES)
    summed = attention.patch_rows().sum(2)
    torch.testing.assert_close(attention.received(), summed, rtol=1e-5, atol=1e-5)


@one_of_each
def test_it_holds_every_weight_of_the_folder(load: Load, name: str) -> None:
    backbone = load(name)
    folder = backbone_folder(backbone)
    model_class, _ = SAVED[name]
    saved: Any = getattr(transformers, model_class).from_pretrained(folder)
    vision = getattr(saved, "vision_model", saved)
    own = dict(backbone.model.named_parameters())
    assert own.keys() <= dict(vision.named_parameters()).keys()
    for key, weight in vision.named_parameters():
        if not key.startswith("pooler."):
            assert torch.equal(own[key], weight), key


def backbone_folder(backbone: TransformersBackbone) -> str:
    return str(backbone.model.name_or_path)


@one_of_each
@pytest.mark.parametrize("side", [SIDE - 2 * PATCH, SIDE + PATCH])
@torch.inference_mode()
def test_another_resolution_is_the_models_own_interpolation(
    load: Load, name: str, side: int
) -> None:
    backbone = load(name, resolution=side)
    images = noise_batch(2, side)
    asked = {"interpolate_pos_encoding": True} if name in {"clip", "siglip", "vit"} else {}
    hidden = own_forward(backbone, images, **asked).hidden_states
    assert backbone.site.resolution == side
    assert torch.equal(joined(backbone.tokens(images)), hidden[2])
    rows = backbone.attention(images).patch_rows()
    assert rows.shape[2] == (side // PATCH) ** 2
    pooled = backbone.resume(backbone.tokens(images)).pooled
    assert torch.equal(pooled, backbone.family.finish(backbone.model, hidden[-1])[1])


PRECISIONS: dict[Precision, float] = {"bf16": 5e-2, "fp16": 6e-3}


@one_of_each
@pytest.mark.parametrize("precision", PRECISIONS)
def test_half_precision_keeps_the_residual_stream_in_fp32(
    load: Load, name: str, precision: Precision
) -> None:
    full = load(name)
    half = replace(full, precision=precision)
    exact, found = full.tokens(IMAGES), half.tokens(IMAGES)
    assert found.patch.dtype == found.prefix.dtype == torch.float32
    gap = float((found.patch - exact.patch).norm() / exact.patch.norm())
    assert 1e-5 < gap < PRECISIONS[precision]
    rows = half.attention(IMAGES).patch_rows()
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.sum(-1), torch.ones(rows.shape[:-1]))
    with torch.inference_mode(), matmul_precision(precision, CPU):
        own = half.model(pixels_of(half)).last_hidden_state
    if name != "clip":
        assert torch.equal(half.resume(found).patch, own[:, half.n_prefix :])
