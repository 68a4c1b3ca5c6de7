"""``scenes-vit``: the embedded default, its untrained copy, its text tower, and their file.

A file is safetensors whose header says how to rebuild both towers (``training/scenes_vit.py``).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional

from vitscope.axes import Float
from vitscope.backbones.adapter import designated_layer
from vitscope.backbones.backbone import Preprocessing
from vitscope.backbones.scenes_text import CaptionTower, CaptionTowerShape
from vitscope.backbones.settings import BackboneSettings, refuse_settings
from vitscope.backbones.timm_vit import TimmBackbone, timm_site
from vitscope.backbones.weights.reading import read_state, weights_checksum
from vitscope.embedded.files import SCENES_VIT, SCENES_VIT_UNTRAINED, WEIGHT_FILES
from vitscope.errors import BackboneError

SCENES_FORMAT = "vitscope-scenes-vit"
SCENES_SCHEMA = 1
HEADER_KEY = "vitscope"
UNTRAINED_SEED = 0

_VISION, _TEXT, _PROJECTION = "vision.", "text.", "image_projection.weight"
_HINT = "export one with `python training/scenes_vit.py --out RUN --export FILE`"


@dataclass(frozen=True)
class ScenesHeader:
    """What a file says of its towers, as far as it is needed to rebuild them.

    Attributes:
        name: ``scenes-vit-s``, …
        vision: keyword arguments of timm's ``VisionTransformer``.
        mean, std: per channel, after bytes are divided by 255.
        text: sizes of the text tower.
        images_seen: scenes trained on.
    """

    name: str
    vision: dict[str, Any]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    text: CaptionTowerShape
    images_seen: int


@dataclass(frozen=True)
class ScenesText:
    """Captions and images in their shared space.

    Attributes:
        tower: of captions.
        projection: from the backbone's pooled output.
        scale: what cosines are multiplied with to become logits.
        shape: of the tower.
    """

    tower: CaptionTower
    projection: Float32[Tensor, "e d"]
    scale: float
    shape: CaptionTowerShape

    @torch.inference_mode()
    def embed(self, texts: list[str]) -> Float32[Tensor, "N e"]:
        """Return unit rows of captions."""
        return self.tower(self.shape.tokenize(texts).to(self.projection.device))

    @torch.inference_mode()
    def project(self, pooled: Float[Tensor, "B d"]) -> Float32[Tensor, "B e"]:
        """Return unit rows of images, from the pooled output of the backbone."""
        return functional.normalize(functional.linear(pooled.float(), self.projection), dim=-1)


def load_scenes_vit(settings: BackboneSettings, device: torch.device) -> TimmBackbone:
    """Build a backbone that was trained on scenes.

    Raises:
        BackboneError: no such file, damaged weights, or a setting that it does not have.
    """
    because = " (its positions are those of one grid)"
    refuse_settings(settings, "resolution", "activation", because=because)
    path = scenes_file(settings)
    header = read_header(path)
    if settings.name == SCENES_VIT_UNTRAINED:
        name, weights = SCENES_VIT_UNTRAINED, f"untrained, seed {UNTRAINED_SEED}"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(UNTRAINED_SEED)
            model = VisionTransformer(**header.vision)
    else:
        name, weights = header.name, weights_checksum(path)
        model = VisionTransformer(**header.vision)
        _load_part(model, read_state(path), _VISION, path)
    layer = designated_layer(settings.layer, -2, len(model.blocks), settings.name)
    site = timm_site(model, name, weights, layer)
    # a margin of one patch: of a scene rendered at (p + 1)·n pixels, every view is cut unscaled
    share = settings.crop_share or site.grid / (site.grid + 1)
    seen = Preprocessing(crop_share=share, mean=header.mean, std=header.std)
    return TimmBackbone(model.to(device).eval(), site, seen, settings.precision)


def load_scenes_text(settings: BackboneSettings, device: torch.device) -> ScenesText:
    """Build the text tower of such a backbone.

    Raises:
        BackboneError: as :func:`load_scenes_vit`; the untrained copy has no text tower.
    """
    if settings.name == SCENES_VIT_UNTRAINED:
        raise BackboneError(
            f"'{SCENES_VIT_UNTRAINED}' has never seen a caption; use '{SCENES_VIT}'"
        )
    path = scenes_file(settings)
    shape, state = read_header(path).text, read_state(path)
    tower = CaptionTower(shape)
    _load_part(tower, state, _TEXT, path)
    scale = float(state["logit_scale"].exp())
    return ScenesText(tower.to(device).eval(), state[_PROJECTION].to(device), scale, shape)


def scenes_file(settings: BackboneSettings) -> Path:
    """Return the file of such a backbone: given, or shipped with the package.

    Raises:
        BackboneError: neither.
    """
    if settings.weights is not None:
        return settings.weights
    if settings.name not in WEIGHT_FILES:
        raise BackboneError(
            f"'{settings.name}' does not come with the package: train it with training/"
            "scenes_vit.py (docs/scenes.md) and give its export as backbone.weights (--weights)"
        )
    return WEIGHT_FILES[settings.name]


def read_header(path: Path) -> ScenesHeader:
    """Read the header of an exported file.

    Raises:
        BackboneError: it is missing, no safetensors file, or no export of this version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(HEADER_KEY)
    except FileNotFoundError:
        raise BackboneError(f"{path} does not exist; {_HINT}") from None
    except (SafetensorError, OSError) as error:
        raise BackboneError(f"{path} is no safetensors file ({error}); {_HINT}") from None
    if text is None:
        raise BackboneError(f"{path} is not the export of a reference backbone; {_HINT}")
    try:
        found = json.loads(text)
        if (found["format"], found["version"]) != (SCENES_FORMAT, SCENES_SCHEMA):
            raise BackboneError(
                f"{path} has format {found['format']} version {found['version']}; this vitscope "
                f"reads {SCENES_FORMAT} version {SCENES_SCHEMA}: export it again, or update "
                "vitscope"
            )
        told = found["text"]
        sizes = {name: told[name] for name in ("width", "depth", "heads", "max_tokens")}
        vocabulary = tuple(told["vocabulary"])
        return ScenesHeader(
            name=found["name"],
            vision=dict(found["vision"]),
            mean=tuple(found["normalisation"]["mean"]),
            std=tuple(found["normalisation"]["std"]),
            text=CaptionTowerShape(**sizes, embedding=found["embedding"], vocabulary=vocabulary),
            images_seen=int(found["images_seen"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BackboneError(f"the header of {path} is damaged ({error!r}); {_HINT}") from None


def _load_part(module: torch.nn.Module, state: dict[str, Tensor], prefix: str, path: Path) -> None:
    own = {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }
    try:
        module.load_state_dict(own, strict=True)
    except RuntimeError as error:
        first = " ".join(str(error).split())
        raise BackboneError(f"{path} does not hold what its header says: {first}") from None
