"""Which backbone, with which weights, read where and how."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from vitscope.errors import BackboneError
from vitscope.settings import Settings

PENULTIMATE = "penultimate"
TRANSFORMERS = "transformers:"

Precision = Literal["fp32", "bf16", "fp16"]
Gelu = Literal["gelu", "gelu_tanh", "quick_gelu"]

PositionMethod = Literal["timm", "bicubic", "meta"]
"""``timm``: bicubic, low-passed where it shrinks (timm; transformers' DINOv2 with registers).
``bicubic``: plain (transformers' DINOv2). ``meta``: plain, with the scale of Meta's hub models."""


class BackboneSettings(Settings):
    """Which backbone, at which block, with which weights."""

    name: str = "planted"
    """``planted``; ``scenes-vit`` or ``scenes-vit-untrained``, embedded; a name of the zoo
    (``vitscope models``); the name of any timm ViT; ``transformers:`` and a hub id or folder; or
    ``file.py:function``, your own."""

    weights: Path | None = None
    """A local checkpoint; without it the weights come from the hub."""

    layer: Annotated[int, Field(strict=True)] | Literal["penultimate"] | None = None
    """Block whose output is analysed: from 1, from the end (-1 is the last), or ``penultimate``;
    None takes the zoo's."""

    resolution: int | None = Field(default=None, ge=1)
    """Input side in pixels; None takes the zoo's."""

    crop_share: float | None = Field(default=None, gt=0, le=1)
    """Share of the resized image that the centre crop keeps; None takes the backbone's own."""

    activation: Gelu | None = None
    """Activation of the blocks' MLPs; None takes the one the weights were trained with."""

    positions: PositionMethod | None = None
    """How position embeddings are resized where the resolution is not the weights' own; None takes
    the zoo's, which is ``timm`` for all but ``focus-s``, and for any other timm ViT."""

    precision: Precision = "fp32"
    """Of the matrix products; the residual stream and attention probabilities stay fp32."""

    batch_size: int = Field(default=32, ge=1)
    """Images per forward pass."""

    device: str = "auto"
    """``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1`` …"""


def resolve_name(name: str, base: Path) -> str:
    """Return a backbone's name with the path in it, if there is one, starting from ``base``."""
    if name.startswith(TRANSFORMERS):
        source = name.removeprefix(TRANSFORMERS)
        folder = base / Path(source).expanduser()
        return f"{TRANSFORMERS}{folder}" if folder.is_dir() else name
    source, _, function = name.rpartition(":")
    return f"{base / Path(source).expanduser()}:{function}" if source.endswith(".py") else name


def refuse_settings(settings: BackboneSettings, *keys: str, because: str = "") -> None:
    """Refuse settings that say nothing about the backbone at hand.

    Raises:
        BackboneError: one of ``keys`` was set.
    """
    for key in keys:
        if getattr(settings, key) is not None:
            raise BackboneError(
                f"backbone.{key} means nothing for '{settings.name}'{because}; remove it"
            )
