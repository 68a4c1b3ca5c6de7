"""What the adapter of `transformers` refuses, each by name and in one line."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.backbones.parity_folders import (
    DEPTH,
    PATCH,
    SIDE,
    WEIGHTS,
    WIDTH,
    change_json,
    change_weights,
    refused,
    save_tiny,
)

from vitscope.backbones.transformers_vit import TRANSFORMERS_FAMILIES


@pytest.fixture
def vision(tmp_path: Path) -> Path:
    return save_tiny("clip-vision", tmp_path / "tiny")


@pytest.fixture
def registers(tmp_path: Path) -> Path:
    return save_tiny("dinov2-registers", tmp_path / "tiny")


def test_without_transformers_the_way_to_install_it(
    vision: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(r'needs transformers: pip install "vitscope\[hf\]"$', vision)


def test_a_kind_of_model_that_is_not_known(vision: Path) -> None:
    change_json(vision / "config.json", model_type="swin")
    message = refused("is a transformers model of type 'swin'; supported: clip, ", vision)
    assert all(kind in message for kind in TRANSFORMERS_FAMILIES)


@pytest.mark.parametrize(
    ("content", "match"),
    [("not json", "config.json is not JSON"), ("[1]", "config.json holds JSON, but no object")],
)
def test_a_damaged_configuration(vision: Path, content: str, match: str) -> None:
    (vision / "config.json").write_text(content)
    refused(match, vision)


def test_folders_without_a_model(vision: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused("empty has no config.json; give a folder", tmp_path / "empty")
    refused("empty has no config.json", "someone/else", weights=str(tmp_path / "empty"))
    refused("none does not exist; give a folder", "someone/else", weights=str(tmp_path / "none"))
    refused("neither a folder nor a name on the Hugging Face hub", tmp_path / "nowhere" / "at all")
    (vision / WEIGHTS).unlink()
    refused("is a folder without weights; .* one of model.safetensors, ", vision)


def test_weights_that_cannot_be_read(vision: Path) -> None:
    (vision / WEIGHTS).write_bytes((vision / WEIGHTS).read_bytes()[:5000])
    refused("tiny cannot be loaded as transformers:", vision)


def test_a_missing_weight_is_named_not_random(vision: Path) -> None:
    change_weights(vision, encoder__layers__1__mlp__fc1__bias=None)
    refused("does not hold weights of .*: missing: encoder.layers.1.mlp.fc1.bias$", vision)


def test_blocks_too_few_and_too_many(vision: Path) -> None:
    change_json(vision / "config.json", num_hidden_layers=DEPTH + 1)
    refused(r"missing: encoder.layers.3.layer_norm1.bias, .* and 12 more$", vision)
    change_json(vision / "config.json", num_hidden_layers=DEPTH - 1)
    refused(r"unexpected: encoder.layers.2.layer_norm1.bias, .* and 12 more$", vision)


def test_weights_of_another_shape(vision: Path) -> None:
    change_json(vision / "config.json", intermediate_size=64)
    refused(r"of another shape: encoder.layers.0.mlp.fc1.bias, ", vision)


def test_registers_are_not_left_out(registers: Path) -> None:
    change_json(registers / "config.json", model_type="dinov2")
    refused("unexpected: embeddings.register_tokens$", registers)


def test_another_familys_file(vision: Path, tmp_path: Path) -> None:
    other = save_tiny("vit", tmp_path / "vit")
    (vision / WEIGHTS).write_bytes((other / WEIGHTS).read_bytes())
    refused("missing: .*; unexpected: ", vision)


def test_weights_that_are_not_finite(vision: Path) -> None:
    change_weights(vision, post_layernorm__bias=torch.full((WIDTH,), torch.nan))
    refused("holds NaN or infinite weights", vision)


def test_settings_that_mean_nothing_here(vision: Path) -> None:
    refused("backbone.activation means nothing", vision, activation="gelu")
    refused("backbone.positions = 'meta' means nothing", vision, positions="meta")
    refused("no designated block of its own", vision, layer=None)
    refused("has 3 blocks: give 1..3", vision, layer=4)
    refused(f"is no multiple of {PATCH}, .*; the nearest is 40$", vision, resolution=42)


def test_images_and_patches_that_are_not_square(vision: Path) -> None:
    found = save_tiny("vit", vision.parent / "wide", image_size=(SIDE, SIDE + PATCH))
    refused("takes images or patches that are not square", found)


def test_another_arrangement_of_the_model_names_the_version(
    vision: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.backbones.untyped import transformers

    layer = transformers.models.clip.modeling_clip.CLIPEncoderLayer

    plain = layer.__init__

    def renamed(self: Any, config: Any) -> None:
        plain(self, config)
        self.attention = self.self_attn
        del self.self_attn

    monkeypatch.setattr(layer, "__init__", renamed)
    state = load_file(vision / WEIGHTS)
    moved = {name.replace("self_attn", "attention"): value for name, value in state.items()}
    save_file(moved, vision / WEIGHTS, metadata={"format": "pt"})
    refused("arranges its CLIPVisionModel otherwise than vitscope knows: pip install", vision)
