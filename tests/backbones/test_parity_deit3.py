"""DeiT III's own names, through our converter, in timm: the same network as written down anew."""

import copy

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
    read_at,
    relative_error,
    small,
)
from tests.backbones.parity_deit3 import deit3_weights, run_deit3
from tests.backbones.parity_mistakes import Mistake
from tests.backbones.parity_transformers import RivalRun
from tests.backbones.pictures import noise_batch
from timm.models.vision_transformer import VisionTransformer

from vitscope.backbones.weights.strict import load_state

IMAGES = noise_batch(2, GRID * 16)
DEPTH = TINY["depth"]
Pair = tuple[VisionTransformer, RivalRun]


@pytest.fixture(scope="module")
def pair() -> Pair:
    model = small("deit3_base_patch16_224.fb_in1k")
    state = deit3_weights(model)
    load_state(model, dict(state), name="parity", source="memory")
    return model, run_deit3(state, as_pixels(IMAGES), TINY["num_heads"])


@pytest.mark.parametrize("layer", range(1, DEPTH + 1))
def test_tokens_attention_and_resume(pair: Pair, layer: int) -> None:
    model, expected = pair
    backbone = read_at(model, layer)
    tokens, rows = backbone.tokens(IMAGES), all_rows(backbone, IMAGES)
    final = backbone.resume(tokens)
    assert relative_error(joined(tokens), expected.hidden[layer]) <= TOLERANCE
    assert largest_difference(rows, expected.attentions[layer - 1]) <= TOLERANCE
    assert relative_error(final.patch, expected.final[:, 1:]) <= TOLERANCE
    assert relative_error(final.pooled, expected.pooled) <= TOLERANCE
    for other in {layer - 1, layer + 1} & set(range(DEPTH + 1)):
        assert relative_error(joined(tokens), expected.hidden[other]) > WIDE


@pytest.mark.parametrize(
    "mistake",
    [
        mistakes.swap_norms,
        mistakes.swap_scales,
        mistakes.swap_query_and_key,
        mistakes.transpose_positions,
    ],
)
def test_a_mistake_is_found(pair: Pair, mistake: Mistake) -> None:
    model, expected = copy.deepcopy(pair[0]), pair[1]
    mistake(model)
    tokens = read_at(model, DEPTH).tokens(IMAGES)
    assert relative_error(joined(tokens), expected.hidden[DEPTH]) > WIDE


def test_another_activation_is_found(pair: Pair) -> None:
    model, expected = copy.deepcopy(pair[0]), pair[1]
    mistakes.use_activation(model, torch.nn.GELU(approximate="tanh"))
    tokens = read_at(model, DEPTH).tokens(IMAGES)
    assert relative_error(joined(tokens), expected.hidden[DEPTH]) > 10 * TOLERANCE
