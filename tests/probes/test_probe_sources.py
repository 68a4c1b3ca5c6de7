"""Images of a task as a study names them: scenes and true formats; what does not fit is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitscope.backbones.settings import BackboneSettings
from vitscope.embedded.export import export_scenes
from vitscope.embedded.vocabulary import LABEL_CLASSES, MASK_CLASSES, PLACES
from vitscope.errors import ConfigError, ImageSetError
from vitscope.probes.labelled_images import open_task, open_zero_shot
from vitscope.probes.prompts import open_clip_module
from vitscope.probes.settings import (
    ClassificationSettings,
    DepthSettings,
    HeadSettings,
    ProbeSettings,
    SegmentationSettings,
    ZeroShotSettings,
)
from vitscope.probes.text_towers import OPEN_CLIP_TOWERS, load_prompts_of, require_tower

KINDS: dict[str, Any] = {
    "classification": ClassificationSettings,
    "segmentation": SegmentationSettings,
    "depth": DepthSettings,
}


def scenes(task: Any, **changes: Any) -> HeadSettings:
    named = {"train": "scenes:6?seed=3&side=32", "validation": "scenes:4?seed=4&side=32"}
    return KINDS[task].parse(named | changes, source="test")


@pytest.mark.parametrize("task", KINDS)
def test_scenes_have_every_truth(task: Any) -> None:
    sets = open_task(task, scenes(task, train_limit=3))
    assert (len(sets.train), len(sets.validation)) == (3, 4)
    assert sets.train.ids[0].startswith("3-") and sets.validation.ids[0].startswith("4-")
    picture, truth = sets.train.load(0)
    assert picture.size == (32, 32) and truth.ndim == (0 if task == "classification" else 2)
    expected = {"classification": PLACES, "segmentation": MASK_CLASSES[1:], "depth": ()}[task]
    assert sets.classes == tuple(expected)
    assert sets.n_outputs == (len(expected) or None)


def test_another_label_has_its_own_classes() -> None:
    sets = open_task("classification", scenes("classification", label="largest_shape"))
    assert sets.classes == LABEL_CLASSES["largest_shape"]


@pytest.mark.parametrize(("task", "layout"), [("segmentation", "ade20k"), ("depth", "nyud")])
def test_a_root_gives_both_its_splits(tmp_path: Path, task: Any, layout: Any) -> None:
    root = export_scenes(tmp_path / "data", 10, seed=1, side=32, layout=layout)
    sets = open_task(task, KINDS[task](train=root))
    both = len(sets.train) + len(sets.validation)
    assert both == 10 and not set(sets.train.ids) & set(sets.validation.ids)
    # another root lends its validation split alone
    other = export_scenes(tmp_path / "other", 20, seed=2, side=32, layout=layout)
    mixed = open_task(task, KINDS[task](train=root, validation=other))
    assert mixed.train.ids == sets.train.ids
    assert len(mixed.validation) == len(open_task(task, KINDS[task](train=other)).validation)


def test_imagenet_has_its_own_validation(tmp_path: Path) -> None:
    for split, n in (("train", 3), ("val", 2)):
        for name in ("n01", "n02"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(n):
                picture = np.full((8, 8, 3), 40 * i, np.uint8)
                from PIL import Image

                Image.fromarray(picture).save(tmp_path / split / name / f"{i}.png")
    sets = open_task("classification", ClassificationSettings(train=tmp_path))
    assert (len(sets.train), len(sets.validation), sets.classes) == (6, 4, ("n01", "n02"))
    images, classes = open_zero_shot(ZeroShotSettings(images=tmp_path, limit=3))
    assert (len(images), classes) == (3, ("n01", "n02"))
    with pytest.raises(ConfigError, match=r"imagenet names 1000 classes, the images have 2 \(n01"):
        load_prompts_of(ZeroShotSettings(images=tmp_path), classes)


WRONG = [
    ("classification", {"validation": None}, ConfigError, "scenes have no validation split"),
    ("depth", {"validation": "scenes:4?seed=3&side=32"}, ConfigError, "4 scenes are in both sets"),
    ("classification", {"label": "colour"}, ConfigError, "scenes have no label 'colour'"),
    ("segmentation", {"train": "nowhere"}, ImageSetError, "nowhere"),
    ("depth", {"train": "nowhere.mat"}, ImageSetError, "splits.mat|nowhere.mat"),
    ("segmentation", {"train": "scenes:x"}, ImageSetError, "no set of scenes"),
]


@pytest.mark.parametrize(("task", "changes", "kind", "message"), WRONG)
def test_what_does_not_fit_is_told(task: Any, changes: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        open_task(task, scenes(task, **changes))


def test_sets_of_other_classes_are_refused(tmp_path: Path) -> None:
    root = export_scenes(tmp_path, 10, seed=1, side=32, layout="imagenet")
    settings = scenes("classification", train="scenes:6?seed=3", validation=root / "none")
    with pytest.raises(ImageSetError):
        open_task("classification", settings)
    by_time = scenes("classification", label="time")
    assert open_task("classification", by_time).classes == LABEL_CLASSES["time"]


def test_a_task_without_images_is_not_run() -> None:
    assert ProbeSettings().heads() == {}
    depth = ProbeSettings(depth=DepthSettings(train=Path("scenes:4")))
    assert list(depth.heads()) == ["depth"]


def test_prompts_follow_the_images() -> None:
    settings = ZeroShotSettings(images=Path("scenes:4?seed=5&side=32"))
    images, classes = open_zero_shot(settings)
    assert len(images) == 4
    prompts = load_prompts_of(settings, classes)
    assert prompts.classes == PLACES == classes
    assert prompts.sentences(0) == [f"a photo of a {PLACES[0]}"]


def test_a_backbone_without_text_is_refused_and_names_are_open_clips(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = ZeroShotSettings(images=Path("scenes:4"))
    for name in ("scenes-vit", "clip-b16"):
        require_tower(BackboneSettings(name=name), settings)
    with pytest.raises(ConfigError, match="'dinov2-b' has no text tower that is known"):
        require_tower(BackboneSettings(name="dinov2-b"), settings)
    require_tower(BackboneSettings(name="dinov2-b"), ZeroShotSettings(tower="ViT-B-32"))
    known = open_clip_module().list_pretrained()
    assert set(OPEN_CLIP_TOWERS.values()) <= set(known)
