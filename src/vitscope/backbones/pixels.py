"""From bytes to what a network takes: scaled to [0, 1], then standardised per channel."""

import torch
from jaxtyping import Float32
from torch import Tensor

from vitscope.axes import ImageBatch
from vitscope.backbones.backbone import Preprocessing, Site
from vitscope.errors import BackboneError


def standardise(
    images: ImageBatch, site: Site, preprocessing: Preprocessing, device: torch.device
) -> Float32[Tensor, "B 3 H W"]:
    """Return ``images`` as the network takes them, on its device.

    Raises:
        BackboneError: not bytes, or not of the site's resolution.
    """
    side = site.resolution
    if images.dtype != torch.uint8 or tuple(images.shape[1:]) != (3, side, side):
        raise BackboneError(
            f"{site.model} takes bytes [B, 3, {side}, {side}], got {images.dtype} "
            f"{list(images.shape)}; resize with the backbone's own preprocessing"
        )
    scaled = images.to(device).float() / 255
    mean = scaled.new_tensor(preprocessing.mean)[:, None, None]
    std = scaled.new_tensor(preprocessing.std)[:, None, None]
    return (scaled - mean) / std
