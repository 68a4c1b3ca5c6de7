"""Which text tower belongs to a backbone, and which prompts to a set of images."""

from pathlib import Path

import torch

from vitscope.backbones.loading import choose_device
from vitscope.backbones.settings import BackboneSettings
from vitscope.embedded.files import REFERENCE_BACKBONES
from vitscope.errors import ConfigError
from vitscope.images.sources import is_scene_set
from vitscope.probes.prompts import Prompts, load_prompts, open_clip_module
from vitscope.probes.settings import PromptSet, ZeroShotSettings
from vitscope.probes.text import TextTower, load_open_clip

OPEN_CLIP: dict[str, tuple[str, str]] = {
    "clip-b16": ("ViT-B-16-quickgelu", "openai"),
    "clip-l14": ("ViT-L-14-quickgelu", "openai"),
    "clip-l14-336": ("ViT-L-14-336-quickgelu", "openai"),
    "siglip2-b": ("ViT-B-16-SigLIP2", "webli"),
    "siglip2-l": ("ViT-L-16-SigLIP2-256", "webli"),
    "siglip2-g": ("ViT-SO400M-14-SigLIP2", "webli"),
}
"""Backbone of the zoo -> open_clip's name and tag of the release that its weights are from."""


def require_tower(backbone: BackboneSettings, settings: ZeroShotSettings) -> None:
    """Refuse what has no text tower, before any image is read.

    Raises:
        ConfigError: the backbone has none and none is named, or open_clip is not installed.
    """
    if settings.tower is None and backbone.name in REFERENCE_BACKBONES:
        return
    if settings.tower is None and backbone.name not in OPEN_CLIP:
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
        name, tag = OPEN_CLIP[backbone.name]
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
