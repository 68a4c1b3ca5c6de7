"""The sizes of a backbone that decide what a pass costs, without building it."""

from dataclasses import dataclass

from vitscope.backbones.planted.spec import PlantedSpec
from vitscope.backbones.zoo import ZOO
from vitscope.errors import ConfigError
from vitscope.study import Study

HEAD_WIDTH = 64
"""Of every attention head in the zoo but so400m's, whose 72 changes no figure here by much."""

EMBEDDED = {
    "scenes-vit": (80, 8, 128, 8, 7),
    "scenes-vit-untrained": (80, 8, 128, 8, 7),
    "scenes-vit-t": (80, 8, 64, 4, 3),
    "scenes-vit-xs": (80, 8, 96, 6, 5),
    "scenes-vit-s": (80, 8, 128, 8, 7),
    "scenes-vit-m": (112, 8, 192, 12, 11),
    "scenes-vit-l": (112, 8, 256, 12, 11),
}
"""Resolution, patch, width, depth, layer."""


@dataclass(frozen=True)
class Shape:
    """A vision transformer's sizes.

    Attributes:
        width: d.
        depth: blocks.
        layer: the designated one, from 1.
        grid: p, patches a side.
    """

    width: int
    depth: int
    layer: int
    grid: int

    @property
    def patches(self) -> int:
        """Patch tokens an image."""
        return self.grid**2

    @property
    def heads(self) -> int:
        """Attention heads, about."""
        return max(self.width // HEAD_WIDTH, 1)

    @property
    def block_parameters(self) -> int:
        """Of one block: 4·d² of attention, 8·d² of the MLP."""
        return 12 * self.width**2

    def pass_flops(self, blocks: int) -> float:
        """Return the operations of one image through so many blocks.

        Two a weight and token, and 4·T²·d of attention; the CLS token and the patch embedding,
        less than a hundredth, are left out.
        """
        tokens = self.patches
        per_token = 2 * self.block_parameters + 4 * tokens * self.width
        return float(blocks) * tokens * per_token


def shape_of(study: Study) -> Shape:
    """Return the sizes of the study's backbone.

    Raises:
        ConfigError: it is neither in the zoo nor embedded.
    """
    settings = study.backbone
    if settings.name == "planted":
        spec = PlantedSpec()
        return Shape(spec.width, 0, 0, spec.grid)  # no blocks: tokens are read off the pixels
    if settings.name in ZOO:
        entry = ZOO[settings.name]
        resolution, patch, width = entry.resolution, entry.patch, entry.width
        depth, layer = entry.depth, entry.layer
    elif settings.name in EMBEDDED:
        resolution, patch, width, depth, layer = EMBEDDED[settings.name]
    else:
        raise ConfigError(f"nothing is known of the sizes of '{settings.name}'; it has no price")
    if isinstance(settings.layer, int):
        layer = settings.layer if settings.layer > 0 else depth + 1 + settings.layer
    elif settings.layer == "penultimate":
        layer = depth - 1
    return Shape(width, depth, layer, (settings.resolution or resolution) // patch)
