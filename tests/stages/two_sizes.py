"""Two sizes of a vision transformer with random weights, as somebody's own backbones."""

import math

import torch
from timm.models.vision_transformer import VisionTransformer

from vitscope.backbones.backbone import Preprocessing, Site
from vitscope.backbones.settings import BackboneSettings
from vitscope.backbones.timm_vit import TimmBackbone

SIDE, PATCH, DEPTH = 40, 8, 2


def small(settings: BackboneSettings) -> TimmBackbone:
    return _built("small", 16)


def large(settings: BackboneSettings) -> TimmBackbone:
    return _built("large", 32)


def n_parameters(width: int) -> int:
    """Counted by hand: patches, CLS, positions, blocks of attention and MLP, final norm."""
    stem = 3 * PATCH**2 * width + width + width + (1 + (SIDE // PATCH) ** 2) * width
    block = 2 * 2 * width + 4 * (width**2 + width) + 2 * 4 * width**2 + 5 * width
    return stem + DEPTH * block + 2 * width


def _built(name: str, width: int) -> TimmBackbone:
    with torch.random.fork_rng():
        torch.manual_seed(width)
        model = VisionTransformer(
            img_size=SIDE, patch_size=PATCH, embed_dim=width, depth=DEPTH, num_heads=2,
            num_classes=0,
        )  # fmt: skip
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) / math.sqrt(width))
    site = Site(f"two-sizes-{name}", "random", 1, width, SIDE // PATCH, PATCH)
    return TimmBackbone(model.eval(), site, Preprocessing(1.0, (0.5, 0.5, 0.5), (0.3, 0.3, 0.3)))
