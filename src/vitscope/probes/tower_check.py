"""Does a text tower belong to the backbone? Others' weights give chance accuracy without a word."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from vitscope.axes import ImageBatch
from vitscope.backbones.adapter import standardise
from vitscope.backbones.backbone import Backbone
from vitscope.errors import ConfigError
from vitscope.probes.text import OpenClipTower
from vitscope.progress import say

LEAST_COSINE = 0.9999
"""Between a picture's embeddings by both: 1.4 % apart. Another activation is found where it changes
more than that, other weights always."""

LEAST_COSINE_HALF = 0.98
"""Where the backbone's products are in half precision."""


def require_same_weights(backbone: Backbone, tower: OpenClipTower) -> None:
    """Compare how the backbone and the tower's own vision model embed two made-up pictures.

    At another resolution than the tower's, whose model takes no other, the weights of the patch
    embedding are compared instead.

    Raises:
        ConfigError: they are not of the same weights.
    """
    side = backbone.site.resolution
    if _sides(tower.model.visual) != (side, side):
        _require_same_patches(backbone, tower)
        return
    images = _pictures(side)
    pooled = backbone.resume(backbone.tokens(images)).pooled
    device = tower.model.logit_scale.device
    pixels = standardise(images, backbone.site, backbone.preprocessing, device)
    with torch.inference_mode():
        expected = tower.model.encode_image(pixels).float()
    try:
        found = tower.project(pooled.to(device))
    except RuntimeError:  # widths that do not fit
        raise _mismatch(backbone, tower, "their widths differ") from None
    if found.shape != expected.shape:
        raise _mismatch(backbone, tower, "their widths differ")
    cosine = float(cosine_similarity(found, expected).min())
    if not cosine >= (LEAST_COSINE if _is_exact(backbone) else LEAST_COSINE_HALF):  # NaN too
        reason = f"they embed a picture with a cosine of {cosine:.4f}, where equal weights have 1"
        raise _mismatch(backbone, tower, reason)


def _require_same_patches(backbone: Backbone, tower: OpenClipTower) -> None:
    own, other = (_patch_weight(model) for model in (_module(backbone), tower.model.visual))
    if own is None or other is None:
        say(
            f"zero-shot: whether {tower.name} is of the weights of {backbone.site.model} could not "
            "be checked"
        )
    elif own.shape != other.shape or not torch.allclose(own, other, atol=1e-3, rtol=1e-2):
        raise _mismatch(backbone, tower, "their patch embeddings differ")


def _mismatch(backbone: Backbone, tower: OpenClipTower, reason: str) -> ConfigError:
    return ConfigError(
        f"the text tower {tower.name} does not belong to {backbone.site.model}: {reason}; set "
        "probes.zeroshot.tower and tower_weights to the open_clip model (its activation included) "
        "that the backbone's weights are from"
    )


def _is_exact(backbone: Any) -> bool:
    return getattr(backbone, "precision", "fp32") == "fp32"


def _module(backbone: Any) -> nn.Module | None:
    model = getattr(backbone, "model", None)
    return model if isinstance(model, nn.Module) else None


def _patch_weight(model: nn.Module | None) -> Tensor | None:
    """Return the first convolution's weights, [d, 3, n, n], in fp32 on the CPU."""
    modules = () if model is None else model.modules()
    found = next((module for module in modules if isinstance(module, nn.Conv2d)), None)
    return None if found is None else found.weight.detach().float().cpu()


def _sides(visual: Any) -> tuple[int, int] | None:
    size = getattr(visual, "image_size", None)
    if isinstance(size, int):
        return size, size
    return None if size is None else (int(size[0]), int(size[1]))


def _pictures(side: int) -> ImageBatch:
    """Return a picture of noise and one of slopes, [2, 3, side, side]."""
    g = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (3, side, side), generator=g, dtype=torch.uint8)
    slope = torch.linspace(0, 255, side)
    rows, columns = slope[:, None].expand(side, side), slope[None, :].expand(side, side)
    slopes = torch.stack([rows, columns, 255 - (rows + columns) / 2]).to(torch.uint8)
    return torch.stack([noise, slopes])
