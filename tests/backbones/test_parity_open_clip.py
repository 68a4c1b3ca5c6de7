"""Whole models of `open_clip`, through our loader, in timm: the same image towers to five digits.

They are built from open_clip's own configurations, with three blocks and a small text tower.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import open_clip
import pytest
import torch
from tests.backbones import parity_mistakes as mistakes
from tests.backbones.parity_comparison import (
    TOLERANCE,
    WIDE,
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

from vitscope.backbones.weights.strict import load_state

DEPTH = 3
TEXT: dict[str, Any] = {"layers": 1, "width": 32, "heads": 2, "vocab_size": 64}
CLIP, SIGLIP = "ViT-B-16-quickgelu", "ViT-B-16-SigLIP2"
SIDE = 80
SHAPE: dict[str, Any] = {"depth": DEPTH, "embed_dim": 768, "num_heads": 12, "img_size": SIDE}


@dataclass(frozen=True)
class Pair:
    """An image tower in timm, and what open_clip makes of the same images.

    Attributes:
        model: ours.
        images: bytes.
        hidden: before the first block and after every block.
        attentions: of every block, all rows.
        pooled: image embeddings before a projection.
        embedding: image embeddings.
    """

    model: VisionTransformer
    images: Tensor
    hidden: list[Tensor]
    attentions: list[Tensor]
    pooled: Tensor
    embedding: Tensor


def open_clip_model(name: str) -> Any:
    """Return open_clip's own model of a name, cut to three blocks, every weight random."""
    config: Any = open_clip.get_model_config(name)
    vision, width = config["vision_cfg"], config["embed_dim"]
    text: Any = {**TEXT, "context_length": config["text_cfg"]["context_length"]}
    if name == CLIP:
        vision: Any = {**vision, "layers": DEPTH, "image_size": SIDE}
        model: Any = open_clip.CLIP(width, vision, text, quick_gelu=config["quick_gelu"])
    else:
        with torch.device("meta"):
            model = open_clip.CustomTextCLIP(width, vision, text)
            model.visual.trunk.set_input_size((SIDE, SIDE))
        model.visual.trunk.blocks = model.visual.trunk.blocks[:DEPTH]
        model.to_empty(device="cpu")
    randomise(model)
    return model.eval()


def recorded(modules: dict[str, Any], run: Callable[[], Tensor]) -> tuple[dict[str, Any], Tensor]:
    """Run, and return inputs and output of every module, and what the run returns."""
    seen: dict[str, Any] = {}

    def note(name: str, inputs: Any, output: Any) -> None:
        seen[name] = (inputs[0], output)

    handles = [
        module.register_forward_hook(lambda _m, i, o, name=name: note(name, i, o))
        for name, module in modules.items()
    ]
    result = run()
    for handle in handles:
        handle.remove()
    return seen, result


@torch.no_grad()
def clip_pair() -> Pair:
    rival = open_clip_model(CLIP)
    ours = small("vit_base_patch16_clip_quickgelu_224.openai", **SHAPE)
    load_state(ours, dict(rival.state_dict()), name="parity", source="open_clip")
    images, visual = noise_batch(2, SIDE), rival.visual
    blocks = list(visual.transformer.resblocks)
    modules = {**{f"block {i}": block for i, block in enumerate(blocks)}, "norm": visual.ln_post}
    seen, embedding = recorded(modules, lambda: rival.encode_image(as_pixels(images)))
    attentions: list[Tensor] = []
    for i, block in enumerate(blocks):
        z = block.ln_1(seen[f"block {i}"][0])
        attentions.append(block.attn(z, z, z, need_weights=True, average_attn_weights=False)[1])
    _, normed = seen["norm"]
    pooled = normed if normed.ndim == 2 else normed[:, 0]
    return Pair(ours, images, _stream(seen), attentions, pooled, embedding)


@torch.no_grad()
def siglip_pair() -> Pair:
    rival = open_clip_model(SIGLIP)
    # open_clip takes timm's tower as it is: exact GELU, where the release has the tanh form
    ours = small("vit_base_patch16_siglip_224.v2_webli", **SHAPE)
    load_state(ours, dict(rival.state_dict()), name="parity", source="open_clip")
    images, trunk = noise_batch(2, SIDE), rival.visual.trunk
    modules: dict[str, Any] = {}
    for i, block in enumerate(trunk.blocks):
        block.attn.fused_attn = False  # only then is there a softmax to look at
        modules |= {f"block {i}": block, f"softmax {i}": block.attn.attn_drop}
    seen, embedding = recorded(modules, lambda: rival.encode_image(as_pixels(images)))
    attentions = [seen[f"softmax {i}"][1] for i in range(DEPTH)]
    return Pair(ours, images, _stream(seen), attentions, embedding, embedding)


def _stream(seen: dict[str, Any]) -> list[Tensor]:
    return [seen["block 0"][0], *(seen[f"block {i}"][1] for i in range(DEPTH))]


PAIRS = {CLIP: clip_pair, SIGLIP: siglip_pair}
every_name = pytest.mark.parametrize("name", PAIRS)
Pairs = Callable[[str], Pair]


@pytest.fixture(scope="module")
def pair() -> Pairs:
    built: dict[str, Pair] = {}

    def of(name: str) -> Pair:
        if name not in built:
            built[name] = PAIRS[name]()
        return built[name]

    return of


@every_name
def test_tokens_of_every_block(pair: Pairs, name: str) -> None:
    found = pair(name)
    assert len(found.hidden) == DEPTH + 1
    for layer in range(1, DEPTH + 1):
        tokens = joined(read_at(found.model, layer).tokens(found.images))
        assert relative_error(tokens, found.hidden[layer]) <= TOLERANCE
        for other in {layer - 1, layer + 1} & set(range(DEPTH + 1)):
            assert relative_error(tokens, found.hidden[other]) > WIDE


@every_name
def test_attention_of_every_block(pair: Pairs, name: str) -> None:
    found = pair(name)
    for layer in range(1, DEPTH + 1):
        rows = all_rows(read_at(found.model, layer), found.images)
        assert largest_difference(rows, found.attentions[layer - 1]) <= TOLERANCE
        assert largest_difference(rows.transpose(2, 3), found.attentions[layer - 1]) > WIDE


@every_name
def test_embeddings(pair: Pairs, name: str) -> None:
    found = pair(name)
    for layer in (1, DEPTH):
        backbone = read_at(found.model, layer)
        pooled = backbone.resume(backbone.tokens(found.images)).pooled
        assert relative_error(pooled, found.pooled) <= TOLERANCE
        with torch.inference_mode():
            projected = found.model.head(pooled)  # CLIP's projection; SigLIP has none
        assert relative_error(projected, found.embedding) <= TOLERANCE


@every_name
@pytest.mark.parametrize("mistake", ["norms", "query and key", "activation", "positions"])
def test_a_mistake_is_found(pair: Pairs, name: str, mistake: str) -> None:
    found = pair(name)
    model = copy.deepcopy(found.model)
    make = {
        "norms": mistakes.swap_norms,
        "query and key": mistakes.swap_query_and_key,
        "positions": mistakes.transpose_positions,
        "activation": use_another_activation,
    }[mistake]
    make(model)
    backbone = read_at(model, DEPTH)
    tokens = backbone.tokens(found.images)
    far = 10 * TOLERANCE if (name, mistake) == (SIGLIP, "activation") else WIDE
    assert relative_error(joined(tokens), found.hidden[DEPTH]) > far
    assert relative_error(backbone.resume(tokens).pooled, found.pooled) > far


def use_another_activation(model: VisionTransformer) -> None:
    """Put plain GELU in place of OpenAI's quick one, the tanh form in place of the exact one."""
    form = "none" if model.has_class_token else "tanh"
    mistakes.use_activation(model, torch.nn.GELU(approximate=form))
