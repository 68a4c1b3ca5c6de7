"""What a reference backbone's file says of itself: the header of its safetensors."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from vitscope.backbones.reference.text_tower import TextShape
from vitscope.errors import BackboneError

FORMAT = "vitscope-scenes-vit"
VERSION = 1
HEADER_KEY = "vitscope"

_HINT = "export one with `python training/scenes_vit.py --out RUN --export FILE`"


@dataclass(frozen=True)
class Description:
    """How to rebuild the towers, and how they came about.

    Attributes:
        name: ``scenes-vit-s``, …
        vision: keyword arguments of timm's ``VisionTransformer``.
        mean, std: per channel, after bytes are divided by 255.
        text: sizes of the text tower.
        images_seen: scenes trained on.
        recipe: size, seed and sizes of the training.
        curve: held-out figures over training, oldest first.
    """

    name: str
    vision: dict[str, Any]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    text: TextShape
    images_seen: int
    recipe: dict[str, Any]
    curve: tuple[dict[str, Any], ...]


def read_description(path: Path) -> Description:
    """Read the header of an exported file.

    Raises:
        BackboneError: it is missing, no safetensors file, or no export of this version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(HEADER_KEY)
    except FileNotFoundError:
        raise BackboneError(f"{path} does not exist; {_HINT}") from None
    except (SafetensorError, OSError) as error:
        raise BackboneError(f"{path} is no safetensors file ({error}); {_HINT}") from None
    if text is None:
        raise BackboneError(f"{path} is not the export of a reference backbone; {_HINT}")
    try:
        found = json.loads(text)
        if (found["format"], found["version"]) != (FORMAT, VERSION):
            raise BackboneError(
                f"{path} has format {found['format']} version {found['version']}; this vitscope "
                f"reads {FORMAT} version {VERSION}: export it again, or update vitscope"
            )
        return _described(found)
    except (KeyError, TypeError, ValueError) as error:
        raise BackboneError(f"the header of {path} is damaged ({error!r}); {_HINT}") from None


def _described(found: dict[str, Any]) -> Description:
    text, normalisation = found["text"], found["normalisation"]
    shape = TextShape(
        width=text["width"],
        depth=text["depth"],
        heads=text["heads"],
        max_tokens=text["max_tokens"],
        embedding=found["embedding"],
        vocabulary=tuple(text["vocabulary"]),
    )
    return Description(
        name=found["name"],
        vision=dict(found["vision"]),
        mean=tuple(normalisation["mean"]),
        std=tuple(normalisation["std"]),
        text=shape,
        images_seen=int(found["images_seen"]),
        recipe=dict(found["recipe"]),
        curve=tuple(found["curve"]),
    )
