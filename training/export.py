"""Writes what the package loads: fp16 weights of both towers, and JSON beside them."""

import json
from pathlib import Path
from typing import Any

import torch
from checkpoint import Checkpoint
from safetensors.torch import save_file
from sizes import EMBEDDING, MAX_TOKENS, MEAN, PATCH, STD, TEXT_DEPTH, TEXT_HEADS, TEXT_WIDTH
from words import text_shape

from vitscope.backbones.scenes_text import PAD, UNKNOWN
from vitscope.backbones.scenes_vit import HEADER_KEY, SCENES_FORMAT, SCENES_VERSION
from vitscope.store.atomic import atomic_path, write_json

KEPT = ("vision.", "text.", "image_projection.", "logit_scale", "label_heads.")


def export(state: Checkpoint, path: Path) -> None:
    """Write ``path`` (safetensors) and its ``.json``, which repeats the header's metadata."""
    tensors = {
        name: value.to(torch.float16).contiguous()
        for name, value in state.model.items()
        if name.startswith(KEPT)
    }
    metadata = describe(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={HEADER_KEY: json.dumps(metadata)})
    write_json(path.with_suffix(".json"), metadata)


def describe(state: Checkpoint) -> dict[str, Any]:
    """Return everything needed to rebuild the towers, and how they came about."""
    recipe = state.recipe
    return {
        "format": SCENES_FORMAT,
        "version": SCENES_VERSION,
        "name": f"scenes-vit-{recipe['size']}",
        "vision": {
            "img_size": recipe["side"],
            "patch_size": PATCH,
            "embed_dim": recipe["width"],
            "depth": recipe["depth"],
            "num_heads": recipe["heads"],
            "num_classes": 0,
            "global_pool": "token",
        },
        "normalisation": {"mean": MEAN, "std": STD},
        "text": {
            "width": TEXT_WIDTH,
            "depth": TEXT_DEPTH,
            "heads": TEXT_HEADS,
            "max_tokens": MAX_TOKENS,
            "vocabulary": text_shape().vocabulary,
            "pad": PAD,
            "unknown": UNKNOWN,
        },
        "embedding": EMBEDDING,
        "recipe": recipe,
        "images_seen": state.images,
        "seconds": state.seconds,
        "curve": state.curve,
    }
