"""A small timm vision transformer with random weights, and an SAE for its tokens."""

import torch
from timm.models.vision_transformer import VisionTransformer

from vitscope.backbones.backbone import Preprocessing, Site
from vitscope.backbones.timm_vit import TimmBackbone
from vitscope.sae.model import SparseAutoencoder

SIDE, PATCH, WIDTH, M = 32, 8, 24, 60


def small_backbone(layer: int = 2, crop_share: float = 1.0) -> TimmBackbone:
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=SIDE, patch_size=PATCH, embed_dim=WIDTH, depth=3, num_heads=2, num_classes=5
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    site = Site("small", "random", layer, WIDTH, SIDE // PATCH, PATCH)
    seen = Preprocessing(crop_share, (0.5, 0.5, 0.5), (0.3, 0.3, 0.3))
    return TimmBackbone(model.eval(), site, seen)


def small_sae(seed: int = 0) -> SparseAutoencoder:
    g = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(M, WIDTH, generator=g), dim=1)
    return SparseAutoencoder(
        rows.T.contiguous(), torch.zeros(M), rows, torch.randn(WIDTH, generator=g), 0.5, 5
    )
