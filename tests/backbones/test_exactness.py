"""What the zoo's architectures promise besides parity: no wasted block, no whole map, no drift."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from tests.backbones.parity_comparison import (
    TOLERANCE,
    all_rows,
    as_pixels,
    joined,
    largest_difference,
    randomise,
    read_at,
    relative_error,
    small,
)
from tests.backbones.pictures import noise_batch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vitscope.backbones.attention import QUERY_CHUNK
from vitscope.backbones.zoo import ZOO

DEPTH, GRID, HEADS = 4, 16, 6


def architecture(name: str) -> VisionTransformer:
    """Return a zoo architecture, four narrow blocks of it on a 16×16 grid, every weight random."""
    entry = ZOO[name]
    options: dict[str, Any] = {"act_layer": entry.activation} if entry.activation else {}
    model = small(
        entry.timm_name,
        **{"depth": DEPTH, "num_heads": HEADS, "embed_dim": 48, "img_size": GRID * entry.patch},
        **options,
    )
    model.to_empty(device="cpu")
    randomise(model)
    return model


def pictures(model: VisionTransformer, n: int = 3) -> Tensor:
    size = model.patch_embed.img_size
    assert size is not None
    return noise_batch(n, size[0])


every_architecture = pytest.mark.parametrize("name", ZOO)


@every_architecture
def test_only_the_blocks_that_are_needed_run(name: str) -> None:
    model = architecture(name)
    images, calls = pictures(model, 1), list[int]()
    for index, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_args, index=index: calls.append(index))
    for layer in range(1, DEPTH + 1):
        backbone = read_at(model, layer)
        tokens = backbone.tokens(images)
        assert calls == list(range(layer))
        calls.clear()
        backbone.attention(images)
        assert calls == list(range(layer - 1))
        calls.clear()
        backbone.resume(tokens)
        assert calls == list(range(layer, DEPTH))
        calls.clear()


@every_architecture
def test_resuming_unmodified_is_the_plain_forward_pass_bit_for_bit(name: str) -> None:
    model = architecture(name)
    images = pictures(model)
    with torch.inference_mode():
        features = model.forward_features(as_pixels(images))
        pooled = model.forward_head(features, pre_logits=True)
    for layer in range(1, DEPTH + 1):
        backbone = read_at(model, layer)
        final = backbone.resume(backbone.tokens(images))
        assert torch.equal(final.patch, features[:, backbone.n_prefix :])
        assert torch.equal(final.pooled, pooled)


@every_architecture
def test_an_image_alone_is_as_among_others(name: str) -> None:
    backbone = read_at(architecture(name), 2)
    images = pictures(backbone.model)
    together, rows = backbone.tokens(images), all_rows(backbone, images)
    for i in range(len(images)):
        alone = backbone.tokens(images[i : i + 1])
        assert relative_error(joined(alone), joined(together)[i : i + 1]) <= TOLERANCE
        own = all_rows(backbone, images[i : i + 1])
        assert largest_difference(own, rows[i : i + 1]) <= TOLERANCE
        pooled = backbone.resume(alone).pooled
        assert relative_error(pooled, backbone.resume(together).pooled[i : i + 1]) <= TOLERANCE


@every_architecture
def test_attention_is_timms_softmax(name: str) -> None:
    model = architecture(name)
    images = pictures(model, 1)
    rows = {layer: all_rows(read_at(model, layer), images) for layer in range(1, DEPTH + 1)}
    softmaxes: list[Tensor] = []
    for block in model.blocks:
        attn: Any = block.attn
        attn.fused_attn = False
        attn.attn_drop.register_forward_hook(lambda _m, inputs, _o: softmaxes.append(inputs[0]))
    with torch.inference_mode():
        model(as_pixels(images))
    for layer, found in rows.items():
        assert largest_difference(found, softmaxes[layer - 1]) <= TOLERANCE
        torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:-1]))


class LargestTensor(TorchDispatchMode):
    """Notes the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.n_values = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple) else (result,):
            if isinstance(value, Tensor):
                self.n_values = max(self.n_values, value.numel())
        return result


@contextmanager
def largest_tensor() -> Generator[LargestTensor]:
    with LargestTensor() as seen:
        yield seen


@every_architecture
def test_no_whole_map_is_ever_held(name: str) -> None:
    model = architecture(name)
    images = pictures(model, 1)
    backbone = read_at(model, DEPTH)
    n_tokens = GRID * GRID + backbone.n_prefix
    with largest_tensor() as whole:
        backbone.attention(images).patch_rows()
    assert whole.n_values >= HEADS * n_tokens * GRID * GRID
    with largest_tensor() as streamed:
        received = backbone.attention(images).received()
        backbone.attention(images).rows(torch.tensor([0, n_tokens - 1]))
        backbone.resume(backbone.tokens(images))
    most = max(HEADS * n_tokens * QUERY_CHUNK, 3 * (GRID * model.patch_embed.patch_size[0]) ** 2)
    assert streamed.n_values <= most < whole.n_values
    summed = backbone.attention(images).patch_rows().sum(2)
    torch.testing.assert_close(received, summed, rtol=1e-5, atol=1e-5)
