"""How two implementations of one network are compared: random weights everywhere, relative errors.

Fresh networks hide mistakes: LayerScale starts at 1e-5, so that one block's output is the next
one's to five digits; norms start at 1 and 0, so that swapping two changes nothing.
"""

from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from vitscope.backbones.backbone import BlockTokens, Preprocessing, Site
from vitscope.backbones.timm_vit import TimmBackbone

TOLERANCE = 1e-5
"""Largest relative error between implementations of one network, in fp32."""

WIDE = 100 * TOLERANCE
"""What a mistake must exceed for the comparison to be worth anything."""

GAIN = 1.5
"""Above 1, attention is peaked enough to differ between heads, images and blocks."""


@torch.no_grad()
def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Give every parameter random values, so that every block changes the residual stream a lot."""
    g = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        module = name.rpartition(".")[0].rpartition(".")[2]
        spread, centre = 0.3, 0.0  # biases
        if "norm" in module or module.startswith("ln_"):
            centre = float(name.endswith("weight"))
        elif name.endswith(("gamma", "lambda1")):
            centre = 1.0
        elif any(part in name for part in ("token", "pos", "class_embedding", "probe", "latent")):
            spread = 1.0
        elif parameter.ndim > 1:
            spread = GAIN * parameter[0].numel() ** -0.5
        parameter.normal_(generator=g).mul_(spread).add_(centre)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference, as a share of the root mean square of what is expected."""
    assert found.shape == expected.shape, f"{found.shape} against {expected.shape}"
    return float((found - expected).abs().max() / expected.double().square().mean().sqrt())


def largest_difference(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference between probabilities."""
    assert found.shape == expected.shape, f"{found.shape} against {expected.shape}"
    return float((found - expected).abs().max())


PREPROCESSING = Preprocessing(1.0, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))

TINY: dict[str, Any] = {"depth": 3, "embed_dim": 48, "num_heads": 4}
GRID = 5
"""Patches per side of the tiny models."""


def small(timm_name: str, **changes: Any) -> VisionTransformer:
    """Return timm's model of a name, a few narrow blocks of it, on the meta device.

    Norms, LayerScale, prefix tokens, positions, activation and pooling are the named model's own.
    """
    patch = 14 if "patch14" in timm_name else 16
    options: dict[str, Any] = {"img_size": GRID * patch, **TINY, **changes}
    with torch.device("meta"):
        model = timm.create_model(timm_name, **options)
    assert isinstance(model, VisionTransformer)
    return model.eval()


def read_at(model: VisionTransformer, layer: int) -> TimmBackbone:
    """Return the backbone that reads ``model`` at a block."""
    grid, patch = model.patch_embed.grid_size, model.patch_embed.patch_size
    assert grid is not None
    site = Site("parity", "random", layer, int(model.embed_dim), grid[0], patch[0])
    return TimmBackbone(model, site, PREPROCESSING)


def as_pixels(images: Tensor) -> Tensor:
    """Return bytes as a rival takes them, standardised independently of the backbones."""
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (PREPROCESSING.mean, PREPROCESSING.std)
    )
    return (images.float() / 255 - mean) / std


def joined(tokens: BlockTokens) -> Tensor:
    """Return prefix and patch tokens, [B, T, d]."""
    return torch.cat([tokens.prefix, tokens.patch], 1)


def all_rows(backbone: TimmBackbone, images: Tensor) -> Tensor:
    """Return every row of attention, prefix queries included, [B, A, T, T]."""
    attention = backbone.attention(images)
    return attention.rows(torch.arange(attention.n_tokens))
