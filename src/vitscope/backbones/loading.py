"""From a name in the settings to a backbone ready to run."""

from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer

from vitscope.backbones.backbone import Backbone, Preprocessing, Site
from vitscope.backbones.conformance import check_backbone
from vitscope.backbones.hub import fetch_weights, unfetched
from vitscope.backbones.layers import designated_layer
from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.backbones.reference.loading import REFERENCES, load_reference
from vitscope.backbones.settings import TRANSFORMERS, BackboneSettings
from vitscope.backbones.timm_model import (
    build_timm,
    configuration,
    native_grid,
    timm_preprocessing,
)
from vitscope.backbones.timm_vit import TimmBackbone
from vitscope.backbones.user_model import is_user_model, load_user_model
from vitscope.backbones.weights.shards import weights_checksum
from vitscope.backbones.weights.strict import load_weights
from vitscope.backbones.zoo import ZOO
from vitscope.errors import BackboneError

PLANTED = "planted"
DEVICES = ("cpu", "cuda", "mps")

_MEANINGLESS = ("weights", "layer", "resolution", "crop_share", "activation")
"""Settings that say nothing about a backbone that brings its own."""


def load_backbone(settings: BackboneSettings | str, **options: Any) -> Backbone:
    """Build the backbone that ``settings`` name, with its weights, on its device.

    Args:
        settings: the settings, or a name with further settings as keywords
            (``load_backbone("clip-b16", weights="clip.pt", layer=10)``).
        options: see :class:`BackboneSettings`.

    Raises:
        BackboneError: unknown name, weights that cannot be had, a block or size it does not have.
        ConfigError: an option that does not exist.
    """
    if isinstance(settings, str):
        settings = BackboneSettings.parse({"name": settings, **options}, source="load_backbone")
    if settings.name == PLANTED:
        for key in _MEANINGLESS:
            if getattr(settings, key) is not None:
                raise BackboneError(f"backbone.{key} means nothing for 'planted'; remove it")
        return PlantedBackbone()
    device = choose_device(settings.device)
    if settings.name in REFERENCES:
        return load_reference(settings, device)
    if settings.name.startswith(TRANSFORMERS):
        from vitscope.backbones.transformers_vit import load_transformers  # noqa: PLC0415

        return load_transformers(settings.name.removeprefix(TRANSFORMERS), settings, device)
    if is_user_model(settings.name):
        chosen = settings.model_copy(update={"device": str(device)})
        return check_backbone(load_user_model(chosen))
    return _load_timm(settings, device)


def choose_device(name: str) -> torch.device:
    """Return the device of ``name``; ``auto`` is CUDA where there is one.

    Raises:
        BackboneError: not a device, or not one of this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in DEVICES:
            raise RuntimeError(f"it is none of {', '.join(DEVICES)}")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise BackboneError(f"backbone.device = '{name}' cannot be used: {first}") from None
    return device


def _load_timm(settings: BackboneSettings, device: torch.device) -> TimmBackbone:
    entry = ZOO.get(settings.name)
    name = entry.timm_name if entry else settings.name
    resolution = settings.resolution or (entry.resolution if entry else None)
    activation = settings.activation or (entry.activation if entry else None)
    model = build_timm(name, resolution, activation)
    layer = designated_layer(
        settings.layer, entry.layer if entry else None, len(model.blocks), settings.name
    )
    path = settings.weights or _from_hub(model, settings.name)
    load_weights(
        model,
        path,
        name=settings.name,
        native_grid=native_grid(model),
        positions=settings.positions,
    )
    grid, patch = model.patch_embed.grid_size, model.patch_embed.patch_size
    assert grid is not None
    found = configuration(model)
    full_name = ".".join(filter(None, [found["architecture"], found["tag"]]))
    site = Site(full_name, weights_checksum(path), layer, int(model.embed_dim), grid[0], patch[0])
    preprocessing = entry.preprocessing if entry else timm_preprocessing(model)
    return TimmBackbone(
        model.to(device).eval(), site, _cropped(preprocessing, settings), settings.precision
    )


def _from_hub(model: VisionTransformer, name: str) -> Path:
    repo, _, revision = str(configuration(model).get("hf_hub_id") or "").partition("@")
    if not repo:
        raise unfetched(name, "timm knows no repository for it")
    return fetch_weights(repo, name=name, revision=revision or None)


def _cropped(preprocessing: Preprocessing, settings: BackboneSettings) -> Preprocessing:
    share = settings.crop_share or preprocessing.crop_share
    return Preprocessing(crop_share=share, mean=preprocessing.mean, std=preprocessing.std)
