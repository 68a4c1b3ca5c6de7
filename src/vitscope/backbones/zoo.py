"""Backbones with a name: the paper's twelve, and others that are marked as not among them.

Of each: timm model, designated block, outlier threshold, preprocessing.
"""

import difflib
from dataclasses import asdict, dataclass
from typing import Any

from vitscope.backbones.backbone import Preprocessing
from vitscope.backbones.settings import BackboneSettings, Gelu, PositionMethod
from vitscope.errors import BackboneError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class ZooEntry:
    """One named backbone.

    Attributes:
        timm_name: with its weights' tag: a bare name changes meaning between timm versions.
        layer: designated 1-based block, of the paper's Table 5 where it is there.
        tau: outlier threshold of the same table; None where the paper gives none.
        resolution: default input side in pixels.
        patch: n, pixels per patch side.
        width: d.
        depth: number of blocks.
        preprocessing: of the original release; the crop may differ from timm's configuration.
        activation: where timm builds the MLPs with another one than the weights were trained with.
        positions: how position embeddings are resized, as whoever trained at this resolution did.
        in_paper: whether it is one of the paper's twelve; its tables, studies and thresholds know
            no other.
        is_release: whether the weights are those that ``timm_name`` stands for, on the hub; the
            rest have its architecture alone, and are fetched as
            :mod:`vitscope.backbones.fetching` says.
        note: what must be said wherever the backbone is named; empty where its name says all.
    """

    timm_name: str
    layer: int
    tau: float | None
    resolution: int
    patch: int
    width: int
    depth: int
    preprocessing: Preprocessing
    activation: Gelu | None = None
    positions: PositionMethod = "timm"
    in_paper: bool = True
    is_release: bool = True
    note: str = ""

    @property
    def grid(self) -> int:
        """p, patches per side at the default resolution."""
        return self.resolution // self.patch


# OpenAI resizes straight to the input side; timm's configuration of B/16 resizes to 248 and crops
_CLIP = Preprocessing(crop_share=1.0, mean=CLIP_MEAN, std=CLIP_STD)
_DINOV2 = Preprocessing(crop_share=1.0, mean=IMAGENET_MEAN, std=IMAGENET_STD)
_DEIT3 = Preprocessing(crop_share=0.9, mean=IMAGENET_MEAN, std=IMAGENET_STD)
# SigLIP's release squashes the whole image: no crop is the nearest that keeps the aspect ratio
_SIGLIP = Preprocessing(crop_share=1.0, mean=HALF, std=HALF)

# CLIP's layers are our reading (penultimate); names without `quickgelu` load the same weights with
# another activation; timm's SigLIP2 has the exact GELU where the release has its tanh form
ZOO: dict[str, ZooEntry] = {
    "clip-b16": ZooEntry(
        "vit_base_patch16_clip_quickgelu_224.openai", 11, None, 224, 16, 768, 12, _CLIP
    ),
    "clip-l14": ZooEntry(
        "vit_large_patch14_clip_quickgelu_224.openai", 23, None, 224, 14, 1024, 24, _CLIP
    ),
    "clip-l14-336": ZooEntry(
        "vit_large_patch14_clip_quickgelu_336.openai", 23, None, 336, 14, 1024, 24, _CLIP
    ),
    "dinov2-b": ZooEntry("vit_base_patch14_dinov2.lvd142m", 11, 100, 224, 14, 768, 12, _DINOV2),
    "dinov2-l": ZooEntry("vit_large_patch14_dinov2.lvd142m", 23, 100, 224, 14, 1024, 24, _DINOV2),
    "dinov2-g": ZooEntry("vit_giant_patch14_dinov2.lvd142m", 40, 150, 224, 14, 1536, 40, _DINOV2),
    "deit3-s": ZooEntry("deit3_small_patch16_224.fb_in1k", 10, 500, 224, 16, 384, 12, _DEIT3),
    "deit3-b": ZooEntry("deit3_base_patch16_224.fb_in1k", 9, 500, 224, 16, 768, 12, _DEIT3),
    "deit3-l": ZooEntry("deit3_large_patch16_224.fb_in1k", 18, 1000, 224, 16, 1024, 24, _DEIT3),
    "siglip2-b": ZooEntry(
        "vit_base_patch16_siglip_224.v2_webli", 12, 150, 224, 16, 768, 12, _SIGLIP, "gelu_tanh"
    ),
    "siglip2-l": ZooEntry(
        "vit_large_patch16_siglip_256.v2_webli", 24, 150, 256, 16, 1024, 24, _SIGLIP, "gelu_tanh"
    ),
    "siglip2-g": ZooEntry(
        "vit_so400m_patch14_siglip_224.v2_webli", 27, 300, 224, 14, 1152, 27, _SIGLIP, "gelu_tanh"
    ),
    "dinov2-s": ZooEntry(
        "vit_small_patch14_dinov2.lvd142m", 11, None, 224, 14, 384, 12, _DINOV2, in_paper=False
    ),
    "focus-s": ZooEntry(
        "vit_small_patch14_dinov2.lvd142m", 11, None, 224, 14, 384, 12, _DINOV2,
        positions="bicubic", in_paper=False, is_release=False,
        note="tuned for saliency; DINOv2's architecture, not Meta's weights",
    ),
}  # fmt: skip

PAPER_ZOO = {name: entry for name, entry in ZOO.items() if entry.in_paper}
"""The paper's twelve alone."""


def list_zoo() -> dict[str, dict[str, Any]]:
    """Return what the zoo says of every backbone, by name, as plain values."""
    return {name: asdict(entry) | {"grid": entry.grid} for name, entry in ZOO.items()}


def position_method(settings: BackboneSettings) -> PositionMethod:
    """Return how position embeddings are resized: as the settings say, or the zoo."""
    entry = ZOO.get(settings.name)
    return settings.positions or (entry.positions if entry else "timm")


def nearest_name(name: str, others: list[str]) -> BackboneError:
    """Return the error for an unknown backbone, naming the nearest of the zoo and of ``others``."""
    known = ["planted", *ZOO]
    near = difflib.get_close_matches(name.lower(), [*known, *others], n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}, any timm ViT"
    return BackboneError(f"unknown backbone '{name}' ({hint})")
