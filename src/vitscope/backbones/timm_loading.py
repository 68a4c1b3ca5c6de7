"""Timm's vision transformers: architecture by name, weights from a file or the hub."""

from pathlib import Path

import torch
from timm.models.vision_transformer import VisionTransformer

from vitscope.backbones.backbone import Preprocessing, Site
from vitscope.backbones.hub import fetch_weights, unfetched
from vitscope.backbones.layers import designated_layer
from vitscope.backbones.settings import BackboneSettings
from vitscope.backbones.timm_model import (
    build_timm,
    configuration,
    native_grid,
    timm_preprocessing,
)
from vitscope.backbones.timm_vit import TimmBackbone
from vitscope.backbones.weights.shards import weights_checksum
from vitscope.backbones.weights.strict import load_weights
from vitscope.backbones.zoo import ZOO


def load_timm(settings: BackboneSettings, device: torch.device) -> TimmBackbone:
    """Build the backbone of the zoo's name or timm's own, with its weights, on ``device``.

    Raises:
        BackboneError: unknown name, weights that cannot be had, a block or size it does not have.
    """
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
