"""Text towers: sentences beside images, which tower belongs to a backbone, and whether it does."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from vitscope.axes import Float, ImageBatch
from vitscope.backbones.adapter import standardise
from vitscope.backbones.backbone import Backbone
from vitscope.backbones.loading import choose_device
from vitscope.backbones.settings import BackboneSettings
from vitscope.embedded.files import REFERENCE_BACKBONES
from vitscope.errors import ConfigError
from vitscope.images.sources import is_scene_set
from vitscope.probes.prompts import Prompts, load_prompts, open_clip_module
from vitscope.probes.settings import PromptSet, ZeroShotSettings
from vitscope.progress import say

TEXTS_AT_ONCE = 256

LEAST_TOWER_COSINE = 0.9999
"""Between a picture's embeddings by both: 1.4 % apart. Another activation is found where it changes
more than that, other weights always."""

LEAST_TOWER_COSINE_HALF = 0.98
"""Where the backbone's products are in half precision."""

OPEN_CLIP_TOWERS: dict[str, tuple[str, str]] = {
    "clip-b16": ("ViT-B-16-quickgelu", "openai"),
    "clip-l14": ("ViT-L-14-quickgelu", "openai"),
    "clip-l14-336": ("ViT-L-14-336-quickgelu", "openai"),
    "siglip2-b": ("ViT-B-16-SigLIP2", "webli"),
    "siglip2-l": ("ViT-L-16-SigLIP2-256", "webli"),
    "siglip2-g": ("ViT-SO400M-14-SigLIP2", "webli"),
}
"""Backbone of the zoo -> open_clip's name and tag of the release that its weights are from."""


class TextTower(Protocol):
    """Sentences and pooled outputs of a backbone in their common space.

    ``vitscope.backbones.scenes_vit`` has one for its own backbones.
    """

    @property
    def scale(self) -> float:
        """What cosines are multiplied by to become logits."""
        ...

    def embed(self, texts: list[str]) -> Float[Tensor, "N e"]:
        """Return unit rows of sentences."""
        ...

    def project(self, pooled: Float[Tensor, "B d"]) -> Float[Tensor, "B e"]:
        """Return unit rows of images, from the backbone's pooled output."""
        ...


@dataclass(frozen=True, eq=False)
class OpenClipTower:
    """The text side of an open_clip model, and its projection of images.

    The images come from our own backbone (the same weights); open_clip's vision tower lends only
    the projection after pooling. SigLIP has none: its pooled output is in the common space.

    Attributes:
        model: open_clip's, in evaluation mode.
        tokenize: of that model.
        name: as open_clip has it, for messages.
    """

    model: Any
    tokenize: Callable[[list[str]], Tensor]
    name: str = "of open_clip"

    @property
    def scale(self) -> float:
        """The learned inverse temperature."""
        return float(self.model.logit_scale.detach().exp())

    @torch.inference_mode()
    def embed(self, texts: list[str]) -> Float[Tensor, "N e"]:
        """Return unit rows of sentences."""
        device = self.model.logit_scale.device
        rows = [
            self.model.encode_text(self.tokenize(texts[i : i + TEXTS_AT_ONCE]).to(device))
            for i in range(0, len(texts), TEXTS_AT_ONCE)
        ]
        return normalize(torch.cat(rows).float(), dim=-1)

    @torch.inference_mode()
    def project(self, pooled: Float[Tensor, "B d"]) -> Float[Tensor, "B e"]:
        """Return unit rows of images."""
        visual = self.model.visual
        projection = getattr(visual, "proj", None)
        if projection is not None:  # CLIP's own tower
            projected = pooled @ projection.to(pooled.dtype)
        else:  # a timm tower keeps what follows the pooling in ``head``
            projected = cast(Any, getattr(visual, "head", torch.nn.Identity()))(pooled)
        return normalize(projected.float(), dim=-1)


def load_open_clip(name: str, pretrained: str | None, device: torch.device) -> OpenClipTower:
    """Load a text tower, such as ``ViT-B-16-quickgelu`` with ``openai``.

    Raises:
        ConfigError: open_clip is not installed, or has no such model or weights.
    """
    open_clip = open_clip_module()
    try:
        model = open_clip.create_model(name, pretrained=pretrained, device=device)
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # anything from an unknown name to a hub out of reach
        raise ConfigError(
            f"open_clip cannot load '{name}' with weights '{pretrained}': {error}; "
            "`open_clip.list_pretrained()` lists what it has"
        ) from None
    weights = f" ({pretrained})" if pretrained else ""
    return OpenClipTower(model.eval(), tokenizer, f"'{name}'{weights}")


def class_embeddings(tower: TextTower, prompts: Prompts) -> Float[Tensor, "C e"]:
    """Return one unit row per class: the mean over templates of unit rows, made unit again."""
    rows = [tower.embed(prompts.sentences(label)).mean(0) for label in range(len(prompts.classes))]
    return normalize(torch.stack(rows), dim=-1)


def require_tower(backbone: BackboneSettings, settings: ZeroShotSettings) -> None:
    """Refuse what has no text tower, before any image is read.

    Raises:
        ConfigError: the backbone has none and none is named, or open_clip is not installed.
    """
    if settings.tower is None and backbone.name in REFERENCE_BACKBONES:
        return
    if settings.tower is None and backbone.name not in OPEN_CLIP_TOWERS:
        raise ConfigError(
            f"probes.zeroshot: '{backbone.name}' has no text tower that is known; name the "
            "open_clip model of the same weights as probes.zeroshot.tower"
        )
    open_clip_module()


def load_tower(
    backbone: BackboneSettings, settings: ZeroShotSettings, device: torch.device
) -> TextTower:
    """Load the text tower of a backbone: open_clip's where it is named, or the backbone's own.

    Raises:
        VitscopeError: there is none, or its weights cannot be loaded.
    """
    require_tower(backbone, settings)
    if settings.tower is None and backbone.name in REFERENCE_BACKBONES:
        # timm takes seconds to import: for a tower that needs it alone
        from vitscope.backbones.scenes_vit import load_scenes_text  # noqa: PLC0415

        return load_scenes_text(backbone, device)
    name, tag = settings.tower, None
    if name is None:
        name, tag = OPEN_CLIP_TOWERS[backbone.name]
    return load_open_clip(name, settings.tower_weights or tag, device)


def load_text_tower(
    backbone: BackboneSettings | str,
    *,
    tower: str | None = None,
    weights: str | None = None,
    device: str = "auto",
) -> TextTower:
    """Load the text tower that belongs to a backbone, for predictions by text.

    Args:
        backbone: its settings, or its name in the zoo.
        tower: open_clip's name of the model of the same weights, where the zoo knows none.
        weights: open_clip's tag of its weights, or a file.
        device: ``auto``, ``cpu``, ``cuda``, …

    Raises:
        VitscopeError: there is none, or its weights cannot be loaded.
    """
    settings = BackboneSettings(name=backbone) if isinstance(backbone, str) else backbone
    chosen = ZeroShotSettings(tower=tower, tower_weights=weights)
    return load_tower(settings, chosen, choose_device(device))


def load_prompts_of(settings: ZeroShotSettings, classes: tuple[str, ...]) -> Prompts:
    """Read the prompts of the images of ``settings``, whose labels are ``classes``.

    Raises:
        ConfigError: they cannot be read, or name another number of classes.
    """
    source: PromptSet | Path | None = settings.prompts
    if source is None:
        assert settings.images is not None
        source = "scenes" if is_scene_set(settings.images) else "imagenet"
    prompts = load_prompts(source)
    if len(prompts.classes) != len(classes):
        raise ConfigError(
            f"probes.zeroshot.prompts: {source} names {len(prompts.classes)} classes, the images "
            f"have {len(classes)} ({', '.join(classes[:3])}, …): name them in that order"
        )
    return prompts


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
    is_exact = getattr(backbone, "precision", "fp32") == "fp32"
    if not cosine >= (LEAST_TOWER_COSINE if is_exact else LEAST_TOWER_COSINE_HALF):  # NaN too
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
