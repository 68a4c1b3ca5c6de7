"""A timm architecture without weights: on torch's meta device, so that none can stay random."""

import warnings
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from vitscope.backbones.backbone import Preprocessing
from vitscope.backbones.settings import Gelu
from vitscope.backbones.zoo import nearest_name
from vitscope.errors import BackboneError


def build_timm(
    name: str, resolution: int | None = None, activation: Gelu | None = None
) -> VisionTransformer:
    """Return the architecture of timm's ``name`` for an input side, weights not yet there.

    Raises:
        BackboneError: no such model, not a plain vision transformer, or a size it cannot take.
    """
    options: dict[str, Any] = {}
    if resolution is not None:
        options["img_size"] = resolution
    if activation is not None:
        options["act_layer"] = activation
    known(name)
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")  # a deprecated name is still a name
            model = timm.create_model(name, pretrained=False, **options)
    except Exception as error:  # timm's constructors raise what they like
        raise BackboneError(f"timm cannot build {name} with {options}: {error}") from None
    if not isinstance(model, VisionTransformer):
        raise BackboneError(
            f"{name} is a {type(model).__name__}, not a plain vision transformer (timm's "
            "VisionTransformer); write an adapter of your own (docs/backbones.md)"
        )
    side, patch = input_side(model), model.patch_embed.patch_size[0]
    # timm builds a smaller grid without a word, and fails at the first image
    if side % patch:
        nearest = max(round(side / patch), 1) * patch
        raise BackboneError(
            f"backbone.resolution = {side} is no multiple of {patch}, the patch side of {name}; "
            f"the nearest is {nearest}"
        )
    return model.eval()


def known(name: str) -> None:
    """Check that timm has a model, and a tag of weights, of this name.

    Raises:
        BackboneError: naming the nearest, or the tags that there are.
    """
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise nearest_name(name, timm.list_models(module="vision_transformer"))
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        raise BackboneError(f"timm's {base} has no weights '{tag}'; it has: {', '.join(tags)}")


def input_side(model: VisionTransformer) -> int:
    """Return the input side in pixels that a model was built for."""
    size = model.patch_embed.img_size
    assert size is not None and size[0] == size[1]
    return int(size[0])


def native_grid(model: VisionTransformer) -> tuple[int, int]:
    """Return the patch grid at which a model's published weights were trained."""
    patch = model.patch_embed.patch_size[0]
    _, height, width = configuration(model)["input_size"]
    return height // patch, width // patch


def timm_preprocessing(model: VisionTransformer) -> Preprocessing:
    """Return the preprocessing of timm's own configuration of a model."""
    found = configuration(model)
    mean, std = tuple(found["mean"]), tuple(found["std"])
    return Preprocessing(crop_share=float(found["crop_pct"]), mean=mean, std=std)


def configuration(model: VisionTransformer) -> dict[str, Any]:
    """Return timm's configuration of a model's weights."""
    found: Any = model.pretrained_cfg
    return dict(found)
