"""Preprocessing that folders of `transformers` were saved with."""

from pathlib import Path
from typing import Any

import pytest
from tests.backbones.parity_folders import SIDE, change_json, load, save_tiny

from vitscope.backbones.backbone import Preprocessing
from vitscope.backbones.transformers_loading import saved_preprocessing
from vitscope.backbones.transformers_vit import TRANSFORMERS_FAMILIES
from vitscope.backbones.zoo import CLIP_MEAN, CLIP_STD, HALF, IMAGENET_MEAN, IMAGENET_STD
from vitscope.errors import BackboneError


def preprocessing(tmp_path: Path, family: str, /, **saved: Any) -> tuple[Preprocessing, int | None]:
    change_json(tmp_path / "preprocessor_config.json", **saved)
    return saved_preprocessing(tmp_path, TRANSFORMERS_FAMILIES[family])


CLIP_SAVED = {
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
    "rescale_factor": 0.00392156862745098,
}


def test_preprocessing_of_clip_dinov2_and_siglip(tmp_path: Path) -> None:
    clip = Preprocessing(1.0, CLIP_MEAN, CLIP_STD)
    assert preprocessing(tmp_path, "clip", **CLIP_SAVED) == (clip, 224)
    older = {**CLIP_SAVED, "size": 256, "crop_size": 224, "do_center_crop": None}
    cropped = Preprocessing(224 / 256, CLIP_MEAN, CLIP_STD)
    (tmp_path / "older").mkdir()
    assert preprocessing(tmp_path / "older", "clip", **older) == (cropped, 224)
    dinov2 = {"size": {"shortest_edge": 256}, "image_mean": IMAGENET_MEAN, "image_std": HALF}
    expected = Preprocessing(224 / 256, IMAGENET_MEAN, HALF)
    assert preprocessing(tmp_path, "dinov2", **CLIP_SAVED) == (clip, 224)
    assert preprocessing(tmp_path, "dinov2", **{**CLIP_SAVED, **dinov2}) == (expected, 224)


def test_preprocessing_without_a_crop(tmp_path: Path) -> None:
    squashed = {"size": {"height": 256, "width": 256}, "image_mean": HALF, "image_std": HALF}
    expected = (Preprocessing(1.0, HALF, HALF), 256)
    assert preprocessing(tmp_path, "siglip", **squashed) == expected
    ignored = {**squashed, "crop_size": 224, "do_center_crop": False}
    assert preprocessing(tmp_path, "siglip", **ignored) == expected


def test_preprocessing_that_does_not_standardise(tmp_path: Path) -> None:
    saved = {"size": 224, "do_normalize": False, "image_mean": HALF}
    expected = Preprocessing(1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert preprocessing(tmp_path, "vit", **saved) == (expected, 224)


def test_preprocessing_of_a_processor_with_a_text_tower(tmp_path: Path) -> None:
    change_json(tmp_path / "processor_config.json", image_processor=CLIP_SAVED)
    found, _ = saved_preprocessing(tmp_path, TRANSFORMERS_FAMILIES["siglip"])
    assert found == Preprocessing(1.0, CLIP_MEAN, CLIP_STD)


@pytest.mark.parametrize(
    ("family", "mean", "std"),
    [
        ("clip", CLIP_MEAN, CLIP_STD),
        ("siglip", HALF, HALF),
        ("dinov2", IMAGENET_MEAN, IMAGENET_STD),
        ("dinov2_with_registers", IMAGENET_MEAN, IMAGENET_STD),
        ("dinov3_vit", IMAGENET_MEAN, IMAGENET_STD),
        ("vit", HALF, HALF),
    ],
)
def test_preprocessing_where_nothing_is_saved(
    tmp_path: Path, family: str, mean: Any, std: Any
) -> None:
    found = saved_preprocessing(tmp_path, TRANSFORMERS_FAMILIES[family])
    assert found == (Preprocessing(1.0, mean, std), None)


@pytest.mark.parametrize(
    ("saved", "match"),
    [
        ({"rescale_factor": 1 / 127.5}, "scales bytes by 0.0078"),
        ({"do_rescale": False, "rescale_factor": 1}, "scales bytes by 1, not 1/255"),
        ({"image_mean": [0.5]}, r"standardises \[0.5\], not three channels"),
    ],
)
def test_other_preprocessing_is_refused(tmp_path: Path, saved: Any, match: str) -> None:
    with pytest.raises(BackboneError, match=match):
        preprocessing(tmp_path, "vit", **saved)


def test_settings_come_before_the_folder_and_the_folder_before_the_configuration(
    tmp_path: Path,
) -> None:
    vision = save_tiny("clip-vision", tmp_path)
    assert load(vision).site.resolution == SIDE
    change_json(
        vision / "preprocessor_config.json",
        **{**CLIP_SAVED, "size": {"shortest_edge": 64}, "crop_size": 48, "image_mean": HALF},
    )
    saved = load(vision)
    assert saved.site.resolution == 48
    assert saved.preprocessing == Preprocessing(48 / 64, HALF, CLIP_STD)
    asked = load(vision, resolution=56, crop_share=0.5)
    assert asked.site.resolution == 56
    assert asked.preprocessing == Preprocessing(0.5, HALF, CLIP_STD)
