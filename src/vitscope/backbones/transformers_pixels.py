"""Preprocessing of a ``transformers`` folder, in vitscope's terms."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitscope.backbones.backbone import Preprocessing
from vitscope.backbones.transformers_families import Channels, Family
from vitscope.backbones.transformers_source import read_json
from vitscope.errors import BackboneError

BYTE_SCALE = 1 / 255
ZERO: Channels = (0.0, 0.0, 0.0)
ONE: Channels = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class SavedPreprocessing:
    """What a folder says of its images.

    Attributes:
        preprocessing: crop and standardisation.
        side: of the images that come out, in pixels; None where nothing is said.
    """

    preprocessing: Preprocessing
    side: int | None


def saved_preprocessing(folder: Path, family: Family) -> SavedPreprocessing:
    """Return the preprocessing that a folder was saved with; the family's where there is none.

    A resize of both sides to one size (SigLIP, ViT) becomes a resize of the shorter side and no
    crop: the nearest that keeps the aspect ratio. Images are always resized bicubically.

    Raises:
        BackboneError: it scales pixels otherwise than to [0, 1], or is no image preprocessing.
    """
    path, found = _image_processor(folder)
    if found is None:
        return SavedPreprocessing(Preprocessing(1.0, family.mean, family.std), None)
    if not found.get("do_rescale", True) or not math.isclose(
        found.get("rescale_factor", BYTE_SCALE), BYTE_SCALE, rel_tol=1e-3
    ):
        raise BackboneError(
            f"{path} scales bytes by {found.get('rescale_factor')}, not 1/255; vitscope's adapter "
            "cannot: write an adapter of your own (docs/backbones.md)"
        )
    normalised = found.get("do_normalize", True)
    mean = _channels(found.get("image_mean", family.mean), path) if normalised else ZERO
    std = _channels(found.get("image_std", family.std), path) if normalised else ONE
    resized = _side(found.get("size"))
    # older files leave the flag out where there is a crop
    crops = found.get("do_center_crop", found.get("crop_size") is not None)
    cropped = _side(found.get("crop_size")) if crops else None
    side = cropped or resized
    share = min(cropped / resized, 1.0) if cropped and resized else 1.0
    return SavedPreprocessing(Preprocessing(share, mean, std), side)


def _image_processor(folder: Path) -> tuple[Path, dict[str, Any] | None]:
    path = folder / "preprocessor_config.json"
    if path.is_file():
        return path, read_json(path)
    path = folder / "processor_config.json"  # of a model with a text tower, newer
    if path.is_file():
        return path, read_json(path).get("image_processor")
    return path, None


def _side(size: Any) -> int | None:
    if isinstance(size, dict):
        size = size.get("shortest_edge", size.get("height"))
    return size if isinstance(size, int) and size > 0 else None


def _channels(values: Any, path: Path) -> Channels:
    if not isinstance(values, (list, tuple)) or len(values) != 3:
        raise BackboneError(f"{path} standardises {values}, not three channels")
    first, second, third = (float(value) for value in values)
    return first, second, third
