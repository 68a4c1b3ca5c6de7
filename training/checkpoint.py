"""Checkpoints of a training, which survive a kill, and the export that the package loads."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from sizes import (
    EMBEDDING,
    MAX_TOKENS,
    MEAN,
    PATCH,
    STD,
    TEXT_DEPTH,
    TEXT_HEADS,
    TEXT_WIDTH,
    text_shape,
)

from vitscope.backbones.scenes_text import PAD, UNKNOWN
from vitscope.backbones.scenes_vit import HEADER_KEY, SCENES_FORMAT, SCENES_SCHEMA
from vitscope.store.atomic import atomic_path, write_json

FILE = "checkpoint.pt"

KEPT = ("vision.", "text.", "image_projection.", "logit_scale", "label_heads.")
"""What is exported, by the names' beginnings: both towers and the heads of labels."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State after ``images`` scenes, with the curve measured so far and the seconds spent."""

    recipe: dict[str, Any]
    model: dict[str, Any]
    optimizer: dict[str, Any]
    images: int
    seconds: float
    curve: list[dict[str, Any]]


def save(folder: Path, state: Checkpoint) -> None:
    """Replace the folder's checkpoint in one step; a killed process leaves the earlier one."""
    fields = {name: getattr(state, name) for name in Checkpoint.__dataclass_fields__}
    with atomic_path(folder / FILE) as temporary:
        torch.save(fields, temporary)


def load(folder: Path) -> Checkpoint | None:
    """Return the folder's checkpoint, or None where training has not begun."""
    path = folder / FILE
    if not path.exists():
        return None
    return Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))


def export(state: Checkpoint, path: Path) -> None:
    """Write fp16 weights as safetensors, and a ``.json`` that repeats the header's metadata."""
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
        "version": SCENES_SCHEMA,
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
