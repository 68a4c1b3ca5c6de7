"""Weights of `transformers`, through our converter, in timm: the same network to five digits.

Every parameter is random, so that the mistakes at the bottom fail what the right models pass.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.backbones import parity_mistakes as mistakes
from tests.backbones.parity_comparison import (
    GRID,
    TINY,
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
from tests.backbones.parity_folders import TEXT
from tests.backbones.parity_mistakes import Mistake
from tests.backbones.parity_transformers import RivalRun, build_rival, run_rival
from tests.backbones.pictures import noise_batch
from tests.backbones.untyped import transformers
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from vitscope.backbones.weights.strict import load_state, load_weights

DEPTH = TINY["depth"]


@dataclass(frozen=True)
class Case:
    """A timm model, what is changed of it, and whose form it has in `transformers`."""

    family: str
    timm_name: str
    activation: str | None = None
    wrong_activation: str = "gelu_tanh"
    changes: tuple[tuple[str, Any], ...] = ()

    def timm_model(self, activation: str | None = None) -> VisionTransformer:
        chosen = activation or self.activation
        options = {"act_layer": chosen} if chosen else {}
        return small(self.timm_name, **options, **dict(self.changes))


CASES = {
    "clip": Case("clip", "vit_base_patch16_clip_quickgelu_224.openai", wrong_activation="gelu"),
    "clip-l14": Case("clip", "vit_large_patch14_clip_quickgelu_336.openai"),
    "dinov2": Case("dinov2", "vit_base_patch14_dinov2.lvd142m"),
    # twice the width: the gated MLP's is two thirds, rounded
    "dinov2-giant": Case(
        "dinov2", "vit_giant_patch14_dinov2.lvd142m", changes=(("embed_dim", 96),)
    ),
    "dinov2-registers": Case("dinov2", "vit_base_patch14_reg4_dinov2.lvd142m"),
    "siglip2": Case("siglip", "vit_base_patch16_siglip_224.v2_webli", "gelu_tanh", "gelu"),
    # heads of 18: so400m's 72 are no power of two either
    "siglip2-so400m": Case(
        "siglip",
        "vit_so400m_patch14_siglip_224.v2_webli",
        "gelu_tanh",
        "gelu",
        changes=(("embed_dim", 72), ("mlp_ratio", 3.7362)),
    ),
}
every_case = pytest.mark.parametrize("name", CASES)
every_layer = pytest.mark.parametrize("layer", range(1, DEPTH + 1))


@dataclass(frozen=True)
class Pair:
    """One network twice: ours by conversion, and what the rival makes of the same images."""

    case: Case
    model: VisionTransformer
    rival: Any
    images: Tensor
    expected: RivalRun


def converted(case: Case, state: dict[str, Tensor], **options: Any) -> VisionTransformer:
    model = case.timm_model(**options)
    load_state(model, dict(state), name="parity", source="memory")
    return model


@pytest.fixture(scope="module")
def pair() -> Callable[[str], Pair]:
    built: dict[str, Pair] = {}

    def of(name: str) -> Pair:
        if name not in built:
            case = CASES[name]
            rival = build_rival(case.timm_model(), case.family)
            model = converted(case, rival.state_dict())
            images = noise_batch(2, GRID * model.patch_embed.patch_size[0])
            built[name] = Pair(case, model, rival, images, run_rival(rival, as_pixels(images)))
        return built[name]

    return of


Pairs = Callable[[str], Pair]


@every_case
@every_layer
def test_tokens(pair: Pairs, name: str, layer: int) -> None:
    found = pair(name)
    tokens = joined(read_at(found.model, layer).tokens(found.images))
    assert relative_error(tokens, found.expected.hidden[layer]) <= TOLERANCE
    for other in {layer - 1, layer + 1} & set(range(DEPTH + 1)):
        assert relative_error(tokens, found.expected.hidden[other]) > WIDE


@every_case
@every_layer
def test_attention(pair: Pairs, name: str, layer: int) -> None:
    found = pair(name)
    rows = all_rows(read_at(found.model, layer), found.images)
    assert largest_difference(rows, found.expected.attentions[layer - 1]) <= TOLERANCE
    torch.testing.assert_close(rows.sum(-1), torch.ones(rows.shape[:-1]))
    for other in {layer - 2, layer} & set(range(DEPTH)):
        assert largest_difference(rows, found.expected.attentions[other]) > WIDE


@every_case
@every_layer
def test_resume(pair: Pairs, name: str, layer: int) -> None:
    found = pair(name)
    backbone = read_at(found.model, layer)
    tokens = backbone.tokens(found.images)
    final = backbone.resume(tokens)
    normed = found.expected.final[:, backbone.n_prefix :]
    assert relative_error(final.patch, normed) <= TOLERANCE
    assert relative_error(final.pooled, found.expected.pooled) <= TOLERANCE
    # the output of a block is not its normed form, nor the tokens the final ones
    assert relative_error(tokens.patch, normed) > WIDE


@every_case
def test_files_and_memory_give_the_same_model(pair: Pairs, name: str, tmp_path: Path) -> None:
    found = pair(name)
    found.rival.save_pretrained(tmp_path)  # under the names of the hub's files
    model = found.case.timm_model()
    load_weights(model, tmp_path / "model.safetensors", name="parity")
    expected = found.model.state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize(("name", "kind"), [("clip", "CLIP"), ("siglip2", "Siglip")])
def test_a_file_with_a_text_tower(pair: Pairs, name: str, kind: str, tmp_path: Path) -> None:
    found = pair(name)
    vision = found.rival.config.to_dict()
    config = getattr(transformers, f"{kind}Config")(vision_config=vision, text_config=TEXT)
    whole = getattr(transformers, f"{kind}Model")(config)
    randomise(whole, seed=1)
    whole.vision_model.load_state_dict(found.rival.state_dict())
    whole.save_pretrained(tmp_path)
    model = found.case.timm_model()
    load_weights(model, tmp_path / "model.safetensors", name="parity")
    tokens = read_at(model, DEPTH).tokens(found.images)
    assert relative_error(joined(tokens), found.expected.hidden[DEPTH]) <= TOLERANCE


# the mistakes that these tests are there to find: each must fail by far


def errors(model: VisionTransformer, found: Pair) -> tuple[float, float, float]:
    """Return the largest errors over blocks of tokens and attention, and that of the pooling."""
    tokens, rows, pooled = [], [], []
    for layer in range(1, DEPTH + 1):
        backbone = read_at(model, layer)
        own = backbone.tokens(found.images)
        tokens.append(relative_error(joined(own), found.expected.hidden[layer]))
        expected = found.expected.attentions[layer - 1]
        rows.append(largest_difference(all_rows(backbone, found.images), expected))
        pooled.append(relative_error(backbone.resume(own).pooled, found.expected.pooled))
    return max(tokens), max(rows), max(pooled)


@every_case
def test_without_a_mistake(pair: Pairs, name: str) -> None:
    found = pair(name)
    assert max(errors(found.model, found)) <= TOLERANCE


IN_BLOCKS: dict[str, Mistake] = {
    "norms": mistakes.swap_norms,
    "query and key": mistakes.swap_query_and_key,
    "key and value": mistakes.swap_key_and_value,
    "positions": mistakes.transpose_positions,
}


@every_case
@pytest.mark.parametrize("mistake", IN_BLOCKS)
def test_a_mistake_in_the_blocks_is_found(pair: Pairs, name: str, mistake: str) -> None:
    found = pair(name)
    model = copy.deepcopy(found.model)
    IN_BLOCKS[mistake](model)
    assert min(errors(model, found)) > WIDE


@every_case
def test_the_other_activation_is_found(pair: Pairs, name: str) -> None:
    found = pair(name)
    state = found.rival.state_dict()
    gated = name == "dinov2-giant"  # its activation is SiLU, whatever is asked for
    wrong = None if gated else found.case.wrong_activation
    model = converted(found.case, state, activation=wrong)
    if gated:
        mistakes.swap_gate(model)
    # the first block's attention comes before any activation
    tokens, _, pooled = errors(model, found)
    far = WIDE if name in {"clip", "clip-l14", "dinov2-giant"} else 10 * TOLERANCE
    assert min(tokens, pooled) > far  # the two forms of GELU are near each other


@pytest.mark.parametrize("name", ["dinov2", "dinov2-giant", "dinov2-registers"])
def test_layer_scales_in_each_others_place_are_found(pair: Pairs, name: str) -> None:
    found = pair(name)
    model = copy.deepcopy(found.model)
    mistakes.swap_scales(model)
    assert min(errors(model, found)) > WIDE


@pytest.mark.parametrize("name", ["siglip2", "siglip2-so400m"])
def test_key_and_value_of_the_pooling_are_not_swapped(pair: Pairs, name: str) -> None:
    found = pair(name)
    model = copy.deepcopy(found.model)
    mistakes.swap_pooled_key_and_value(model)
    tokens, _, pooled = errors(model, found)
    assert tokens <= TOLERANCE < WIDE < pooled


@every_case
def test_tokens_after_the_final_norm_are_found(pair: Pairs, name: str) -> None:
    found = pair(name)
    tokens = joined(read_at(found.model, 2).tokens(found.images))
    with torch.inference_mode():
        normed = found.model.norm(tokens)
    assert relative_error(normed, found.expected.hidden[2]) > WIDE
