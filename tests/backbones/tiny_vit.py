"""Small timm vision transformers whose every parameter is random, none at its initial value."""

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer

from vitscope.backbones.backbone import Preprocessing, Site
from vitscope.backbones.timm_vit import TimmBackbone

SIDE, PATCH, WIDTH, DEPTH, HEADS = 48, 8, 48, 4, 3

PREPROCESSING = Preprocessing(1.0, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "layer-scale": {"init_values": 1e-5},
    "clip-like": {"pre_norm": True, "norm_layer": torch.nn.LayerNorm},
    "no-cls": {"class_token": False, "global_pool": "avg"},
    "registers": {"reg_tokens": 2, "no_embed_class": True},
    "qk-norm": {"qk_norm": True, "init_values": 0.1},
    "map-pooled": {"class_token": False, "global_pool": "map", "qkv_bias": False},
}


def tiny_vit(seed: int = 0, **changes: Any) -> VisionTransformer:
    """Return a model in evaluation mode with random norms, biases, scales and embeddings."""
    torch.manual_seed(seed)
    options: dict[str, Any] = {
        "img_size": SIDE,
        "patch_size": PATCH,
        "embed_dim": WIDTH,
        "depth": DEPTH,
        "num_heads": HEADS,
        "num_classes": 7,
    }
    model = VisionTransformer(**options | changes)
    randomise(model, seed)
    return model.eval()


@torch.no_grad()
def randomise(model: torch.nn.Module, seed: int) -> None:
    """Give every parameter random values of a size that keeps activations in range."""
    g = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.normal_(generator=g).mul_(spread).add_(centre)


def tiny_backbone(layer: int, variant: str = "plain", seed: int = 0) -> TimmBackbone:
    """Return a tiny model read at ``layer``."""
    site = Site(f"tiny-{variant}", "random", layer, WIDTH, SIDE // PATCH, PATCH)
    return TimmBackbone(tiny_vit(seed, **VARIANTS[variant]), site, PREPROCESSING)
