"""From a name in the settings to a backbone ready to run."""

from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from vitscope.artifacts.checksum import file_checksum
from vitscope.backbones.backbone import Backbone, BackboneSettings, Site
from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.backbones.timm_vit import TimmBackbone
from vitscope.backbones.weights import load_weights
from vitscope.backbones.zoo import ZooEntry, zoo_entry
from vitscope.errors import BackboneError

PLANTED = "planted"
DEVICES = ("cpu", "cuda", "mps")


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
        for key in ("weights", "layer", "resolution"):
            if getattr(settings, key) is not None:
                raise BackboneError(f"backbone.{key} means nothing for 'planted'; remove it")
        return PlantedBackbone()
    entry = zoo_entry(settings.name)
    resolution = settings.resolution or entry.resolution
    model = _build(entry, resolution)
    layer = settings.layer or entry.layer
    if layer > len(model.blocks):
        raise BackboneError(
            f"backbone.layer = {layer}, but {settings.name} has {len(model.blocks)} blocks"
        )
    if settings.weights is None:
        model.load_state_dict(_from_hub(entry, resolution).state_dict())
        weights = f"hub:{entry.timm_name}"
    else:
        load_weights(model, settings.weights, name=settings.name)
        weights = file_checksum(settings.weights)
    grid, patch = model.patch_embed.grid_size, model.patch_embed.patch_size
    assert grid is not None
    site = Site(entry.timm_name, weights, layer, int(model.embed_dim), grid[0], patch[0])
    return TimmBackbone(model.to(choose_device(settings.device)), site, entry.preprocessing)


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


def _build(entry: ZooEntry, resolution: int) -> VisionTransformer:
    model = timm.create_model(entry.timm_name, pretrained=False, img_size=resolution)
    assert isinstance(model, VisionTransformer)
    patch = model.patch_embed.patch_size[0]
    # timm builds a smaller grid without a word, and fails at the first image
    if resolution % patch:
        nearest = max(round(resolution / patch), 1) * patch
        raise BackboneError(
            f"backbone.resolution = {resolution} is no multiple of {patch}, the patch side of "
            f"{entry.timm_name}; the nearest is {nearest}"
        )
    return model.eval()


def _from_hub(entry: ZooEntry, resolution: int) -> VisionTransformer:
    try:
        model = timm.create_model(entry.timm_name, pretrained=True, img_size=resolution)
    except OSError:
        raise BackboneError(
            f"the weights of {entry.timm_name} could not be fetched from the Hugging Face hub; "
            "without a network, set backbone.weights to a local checkpoint file"
        ) from None
    assert isinstance(model, VisionTransformer)
    return model
