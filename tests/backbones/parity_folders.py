"""Tiny models of ``transformers`` saved as ``save_pretrained`` leaves them, every weight random."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.backbones.parity_comparison import randomise
from tests.backbones.untyped import transformers

from vitscope.backbones.settings import BackboneSettings
from vitscope.backbones.transformers_loading import load_transformers
from vitscope.backbones.transformers_vit import TransformersBackbone
from vitscope.errors import BackboneError

WEIGHTS = "model.safetensors"

DEPTH, WIDTH, HEADS, PATCH, SIDE = 3, 48, 4, 8, 40

SHAPE: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "image_size": SIDE,
    "patch_size": PATCH,
}
WITH_MLP: dict[str, Any] = SHAPE | {"intermediate_size": 96}
TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": DEPTH + 2,
    "num_attention_heads": 2,
    "vocab_size": 50,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
TWO_TOWERS: dict[str, Any] = {"vision_config": WITH_MLP, "text_config": TEXT}

SAVED: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": ("CLIPModel", TWO_TOWERS | {"projection_dim": 8}),
    "clip-vision": ("CLIPVisionModel", WITH_MLP),
    "clip-projected": ("CLIPVisionModelWithProjection", WITH_MLP | {"projection_dim": 8}),
    "siglip": ("SiglipModel", TWO_TOWERS),
    "siglip-vision": ("SiglipVisionModel", WITH_MLP),
    "siglip-headless": ("SiglipVisionModel", WITH_MLP | {"vision_use_head": False}),
    "dinov2": ("Dinov2Model", SHAPE),
    "dinov2-gated": ("Dinov2Model", SHAPE | {"use_swiglu_ffn": True}),
    "dinov2-classifier": ("Dinov2ForImageClassification", SHAPE),
    "dinov2-registers": ("Dinov2WithRegistersModel", SHAPE | {"num_register_tokens": 3}),
    "dinov3": ("DINOv3ViTModel", WITH_MLP | {"num_register_tokens": 2, "key_bias": True}),
    "vit": ("ViTModel", WITH_MLP),
    "vit-classifier": ("ViTForImageClassification", WITH_MLP),
}
"""By what is tested with it: the class that is saved, and its configuration."""


def save_tiny(name: str, folder: Path, **changes: Any) -> Path:
    """Save the tiny model ``name`` into ``folder`` and return it."""
    model_class, options = SAVED[name]
    kind: Any = getattr(transformers, model_class)
    with transformers.initialization.no_init_weights():
        model = kind(kind.config_class(**options | changes))
    randomise(model)
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    return folder


def load(source: str | Path, layer: int | str | None = 2, **settings: Any) -> TransformersBackbone:
    chosen = BackboneSettings.parse(
        {"name": f"transformers:{source}", "layer": layer, **settings}, source="a test"
    )
    return load_transformers(str(source), chosen, torch.device("cpu"))


def refused(match: str, source: str | Path, **settings: Any) -> str:
    with pytest.raises(BackboneError, match=match) as caught:
        load(source, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change_weights(folder: Path, **changes: Any) -> None:
    """Replace weights by name (with ``.`` as ``__``); None removes one."""
    state = load_file(folder / WEIGHTS)
    for key, value in changes.items():
        name = key.replace("__", ".")
        state.pop(name, None)
        if value is not None:
            state[name] = value
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


def change_json(path: Path, **changes: Any) -> None:
    old = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({k: v for k, v in {**old, **changes}.items() if v is not None}))
