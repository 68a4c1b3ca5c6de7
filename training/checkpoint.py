"""Checkpoints that survive: written beside the last one, then renamed over it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vitscope.store.atomic import atomic_path

FILE = "checkpoint.pt"


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
