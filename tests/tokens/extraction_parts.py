"""A small set of pictures, and backbones that fail on the way."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vitscope.backbones.backbone import Backbone, BlockTokens
from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.images.generated import write_generated_images
from vitscope.images.loading import to_square
from vitscope.images.sources import ImageFolder, ImageRef
from vitscope.scope.views import plain_view
from vitscope.tokens.encoding import LoaderOptions
from vitscope.tokens.extraction import ExtractedTokens, extract_tokens
from vitscope.tokens.sampling import ActivationSettings

N_IMAGES, SHARD, BATCH = 12, 5, 3
PLANTED = PlantedBackbone()
READING = LoaderOptions(batch_size=BATCH, workers=1)


def picture_refs(folder: Path) -> list[ImageRef]:
    write_generated_images(folder, N_IMAGES, seed=4, side=120)
    return list(ImageFolder(folder))


def extract(
    refs: list[ImageRef],
    folder: Path,
    *,
    backbone: Any = PLANTED,
    settings: ActivationSettings | None = None,
    seed: int = 0,
    fingerprint: str = "one",
) -> ExtractedTokens:
    assert isinstance(backbone, Backbone)
    return extract_tokens(
        backbone,
        refs,
        folder,
        settings or ActivationSettings(tokens_per_image=7, draws=2),
        READING,
        seed=seed,
        fingerprint=fingerprint,
    )


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """File name -> its bytes."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def pixels_of(ref: ImageRef) -> Tensor:
    picture = Image.open(ref.path).convert("RGB")
    view = plain_view(picture, PLANTED.site, PLANTED.preprocessing)
    assert torch.equal(view, to_square(picture, PLANTED.site.resolution))
    return view


@dataclass
class Interrupting:
    """The planted backbone, killed at a call of ``tokens``."""

    at_call: int
    calls: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(PLANTED, name)

    def tokens(self, images: Tensor) -> BlockTokens:
        self.calls += 1
        if self.calls == self.at_call:
            raise KeyboardInterrupt
        return PLANTED.tokens(images)


@dataclass
class Spoiling:
    """The planted backbone with one wrong activation, on the n-th image that it sees."""

    image: int
    value: float
    seen: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(PLANTED, name)

    def tokens(self, images: Tensor) -> BlockTokens:
        found = PLANTED.tokens(images)
        row = self.image - self.seen
        if 0 <= row < len(images):
            found.patch[row, :, 11] = self.value
        self.seen += len(images)
        return found
