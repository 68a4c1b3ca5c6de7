"""A small timm vision transformer with random weights, seen from one block."""

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer

from vitscope.backbones.backbone import Preprocessing, Site
from vitscope.backbones.timm_vit import TimmBackbone

SIDE, PATCH, WIDTH = 32, 8, 24

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "registers": {"reg_tokens": 2, "no_embed_class": True},
    "no-cls": {"class_token": False, "global_pool": "avg"},
    "map-pooled": {"class_token": False, "global_pool": "map"},
}


def small_backbone(layer: int, variant: str = "plain") -> TimmBackbone:
    """Return a model of four blocks read at ``layer``."""
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "img_size": SIDE,
        "patch_size": PATCH,
        "embed_dim": WIDTH,
        "depth": 4,
        "num_heads": 2,
        "num_classes": 5,
    }
    model = VisionTransformer(**options | VARIANTS[variant]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    site = Site(f"small-{variant}", "random", layer, WIDTH, SIDE // PATCH, PATCH)
    return TimmBackbone(model, site, Preprocessing(1.0, (0.5, 0.5, 0.5), (0.3, 0.3, 0.3)))
