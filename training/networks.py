"""A plain vision transformer, a small text tower, and the heads that teach them."""

import math
from dataclasses import dataclass

import torch
from sizes import EMBEDDING, MEAN, PATCH, STD, Size, text_shape
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from vitscope.backbones.scenes_text import CaptionTower
from vitscope.embedded.vocabulary import COLOURS, LABEL_CLASSES, MASK_CLASSES, TEXTURES

FIRST_TEMPERATURE = 0.07
LARGEST_SCALE = 100.0
"""The logits' scale starts at 1 / temperature and is kept below this, as CLIP does."""


def build_vision(size: Size) -> VisionTransformer:
    """Build the ViT: a CLS token, no registers, no LayerScale, norm before each part."""
    return VisionTransformer(
        img_size=size.side,
        patch_size=PATCH,
        embed_dim=size.width,
        depth=size.depth,
        num_heads=size.heads,
        num_classes=0,
        global_pool="token",
    )


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one forward pass gives: unit image rows, label logits, and per-patch readings."""

    image: Tensor
    labels: dict[str, Tensor]
    mask: Tensor
    depth: Tensor
    texture: Tensor
    colour: Tensor


class DualEncoder(nn.Module):
    """Vision and text towers with a linear head a label and linear heads on patch tokens."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.vision = build_vision(size)
        self.text = CaptionTower(text_shape())
        self.image_projection = nn.Linear(size.width, EMBEDDING, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / FIRST_TEMPERATURE)))
        self.label_heads = nn.ModuleDict(
            {name: nn.Linear(size.width, len(words)) for name, words in LABEL_CLASSES.items()}
        )
        self.mask_head = nn.Linear(size.width, len(MASK_CLASSES))
        self.depth_head = nn.Linear(size.width, 1)
        self.texture_head = nn.Linear(size.width, len(TEXTURES))
        self.colour_head = nn.Linear(size.width, len(COLOURS))
        self.register_buffer("mean", 255 * torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD)[:, None, None], persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """Standardise bytes [B, 3, H, W]."""
        return (images.to(self.mean.dtype) - self.mean) / self.std

    def forward(self, images: Tensor) -> Outputs:
        """Encode byte images [B, 3, H, W]."""
        tokens = self.vision.forward_features(self.normalise(images))
        pooled, patches = tokens[:, 0], tokens[:, 1:]
        return Outputs(
            image=functional.normalize(self.image_projection(pooled), dim=-1),
            labels={name: head(pooled) for name, head in self.label_heads.items()},
            mask=self.mask_head(patches),
            depth=self.depth_head(patches)[..., 0],
            texture=self.texture_head(patches),
            colour=self.colour_head(patches),
        )

    def scale(self) -> Tensor:
        """Return the factor of cosines in logits."""
        return self.logit_scale.clamp(max=math.log(LARGEST_SCALE)).exp()
