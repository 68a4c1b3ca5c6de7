"""``scenes-vit``: the embedded default, its untrained copy, and its text tower."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float32
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional

from vitscope.axes import Float
from vitscope.backbones.backbone import Preprocessing, Site
from vitscope.backbones.layers import designated_layer
from vitscope.backbones.reference.description import Description, read_description
from vitscope.backbones.reference.text_tower import TextTower
from vitscope.backbones.settings import BackboneSettings
from vitscope.backbones.timm_vit import TimmBackbone
from vitscope.backbones.weights.reading import read_state
from vitscope.backbones.weights.shards import weights_checksum
from vitscope.embedded.files import SCENES_VIT, SCENES_VIT_UNTRAINED, WEIGHT_FILES
from vitscope.errors import BackboneError

UNTRAINED_SEED = 0
_VISION, _TEXT, _PROJECTION = "vision.", "text.", "image_projection.weight"
_MEANINGLESS = ("resolution", "activation")


@dataclass(frozen=True)
class ReferenceText:
    """Captions and images in their shared space.

    Attributes:
        tower: of captions.
        projection: from the backbone's pooled output.
        scale: what cosines are multiplied with to become logits.
        description: of the file.
    """

    tower: TextTower
    projection: Float32[Tensor, "e d"]
    scale: float
    description: Description

    @torch.inference_mode()
    def embed(self, texts: list[str]) -> Float32[Tensor, "N e"]:
        """Return unit rows of captions."""
        device = self.projection.device
        return self.tower(self.description.text.tokenize(texts).to(device))

    @torch.inference_mode()
    def project(self, pooled: Float[Tensor, "B d"]) -> Float32[Tensor, "B e"]:
        """Return unit rows of images, from the pooled output of the backbone."""
        return functional.normalize(functional.linear(pooled.float(), self.projection), dim=-1)


def load_reference(settings: BackboneSettings, device: torch.device) -> TimmBackbone:
    """Build a reference backbone.

    Raises:
        BackboneError: no such file, damaged weights, or a setting that it does not have.
    """
    for key in _MEANINGLESS:
        if getattr(settings, key) is not None:
            raise BackboneError(
                f"backbone.{key} cannot be changed for '{settings.name}': its positions are those "
                "of one grid; remove it"
            )
    path = reference_file(settings)
    described = read_description(path)
    model, weights = _vision(settings, path, described)
    layer = designated_layer(settings.layer, -2, len(model.blocks), settings.name)
    name = SCENES_VIT_UNTRAINED if settings.name == SCENES_VIT_UNTRAINED else described.name
    grid, patch = model.patch_embed.grid_size, model.patch_embed.patch_size
    assert grid is not None
    site = Site(name, weights, layer, int(model.embed_dim), grid[0], patch[0])
    # a margin of one patch: of a scene rendered at (p + 1)·n pixels, every view is cut unscaled
    share = settings.crop_share or site.grid / (site.grid + 1)
    seen = Preprocessing(crop_share=share, mean=described.mean, std=described.std)
    return TimmBackbone(model.to(device).eval(), site, seen, settings.precision)


def load_reference_text(settings: BackboneSettings, device: torch.device) -> ReferenceText:
    """Build the text tower of a reference backbone.

    Raises:
        BackboneError: as :func:`load_reference`; the untrained copy has no text tower.
    """
    if settings.name == SCENES_VIT_UNTRAINED:
        raise BackboneError(
            f"'{SCENES_VIT_UNTRAINED}' has never seen a caption; use '{SCENES_VIT}'"
        )
    path = reference_file(settings)
    described, state = read_description(path), read_state(path)
    tower = TextTower(described.text)
    _load(tower, state, _TEXT, path)
    scale = float(state["logit_scale"].exp())
    tower = tower.to(device).eval()
    return ReferenceText(tower, state[_PROJECTION].to(device), scale, described)


def reference_file(settings: BackboneSettings) -> Path:
    """Return the file of a reference backbone: given, or shipped with the package.

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


def _vision(
    settings: BackboneSettings, path: Path, described: Description
) -> tuple[VisionTransformer, str]:
    """Return the vision tower, and what identifies its weights."""
    if settings.name == SCENES_VIT_UNTRAINED:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(UNTRAINED_SEED)
            return VisionTransformer(**described.vision), f"untrained, seed {UNTRAINED_SEED}"
    model = VisionTransformer(**described.vision)
    _load(model, read_state(path), _VISION, path)
    return model, weights_checksum(path)


def _load(module: torch.nn.Module, state: dict[str, Tensor], prefix: str, path: Path) -> None:
    own = {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }
    try:
        module.load_state_dict(own, strict=True)
    except RuntimeError as error:
        first = " ".join(str(error).split())
        raise BackboneError(f"{path} does not hold what its header says: {first}") from None
