"""The named backbones: timm model, designated block, outlier threshold, preprocessing."""

import difflib
from dataclasses import dataclass

from vitscope.backbones.backbone import Preprocessing
from vitscope.errors import BackboneError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ZooEntry:
    """One named backbone.

    Attributes:
        timm_name: with its weights' tag: a bare name changes meaning between timm versions.
        layer: designated 1-based block.
        resolution: default input side in pixels.
        preprocessing: of the original release; the crop may differ from timm's configuration.
        tau: outlier threshold of the paper's Table 5, where it gives one.
    """

    timm_name: str
    layer: int
    resolution: int
    preprocessing: Preprocessing
    tau: float | None


# OpenAI resizes straight to 224; timm's configuration resizes to 248 and crops
_CLIP = Preprocessing(crop_share=1.0, mean=CLIP_MEAN, std=CLIP_STD)

ZOO: dict[str, ZooEntry] = {
    "clip-b16": ZooEntry("vit_base_patch16_clip_quickgelu_224.openai", 11, 224, _CLIP, None),
}


def zoo_entry(name: str) -> ZooEntry:
    """Look a backbone up by name.

    Raises:
        BackboneError: naming the nearest known backbone.
    """
    if name in ZOO:
        return ZOO[name]
    known = ["planted", *ZOO]
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
    raise BackboneError(f"unknown backbone '{name}' ({hint})")
