"""Exports: read back as torchvision and the formats' own readers would, and equal to the scenes."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder as TorchvisionFolder

import vitscope as vs
from vitscope.embedded.export import export_scenes
from vitscope.embedded.scene import render_scene
from vitscope.embedded.vocabulary import MASK_CLASSES, PLACES
from vitscope.errors import ConfigError

N, SEED, SIDE = 11, 8, 48


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


def index_rows(root: Path) -> list[dict[str, str]]:
    with (root / "scenes.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_imagenet_has_class_folders_of_places(tmp_path) -> None:
    root = export_scenes(tmp_path, N, seed=SEED, side=SIDE, layout="imagenet")
    found = 0
    for split, n in (("train", 9), ("val", 2)):
        images = TorchvisionFolder(str(root / split))
        assert len(images) == n == len(vs.ImageFolder(root / split))
        for path, target in images.samples:
            index = int(Path(path).stem.rpartition("_")[2])
            scene = render_scene(SEED, index, SIDE)
            assert images.classes[target] == scene.labels["place"] in PLACES
            difference = pixels(Path(path)).astype(float) - scene.image.transpose(1, 2, 0)
            assert np.abs(difference).mean() < 4  # JPEG
            found += 1
    assert found == N


def test_ade20k_annotations_are_the_masks(tmp_path) -> None:
    root = export_scenes(tmp_path, N, seed=SEED, side=SIDE, layout="ade20k")
    assert root == tmp_path / "ADEChallengeData2016"
    names = [line.split("\t") for line in (root / "objectInfo150.txt").read_text().splitlines()]
    assert {int(row[0]): row[-1] for row in names[1:]} == dict(enumerate(MASK_CLASSES[1:], 1))
    places = dict(line.split() for line in (root / "sceneCategories.txt").read_text().splitlines())
    for split, short, n in (("training", "train", 9), ("validation", "val", 2)):
        annotations = sorted((root / "annotations" / split).glob("*.png"))
        images = sorted((root / "images" / split).glob("*.jpg"))
        assert [a.stem for a in annotations] == [i.stem for i in images]
        assert len(annotations) == n
        for path in annotations:
            assert path.stem.startswith(f"ADE_{short}_")
            scene = render_scene(SEED, int(path.stem[-8:]) - 1, SIDE)
            mask = pixels(path)
            assert mask.dtype == np.uint8 and (mask == scene.mask).all()
            assert places[path.stem] == scene.labels["place"]


def test_nyud_depth_is_in_millimetres(tmp_path) -> None:
    root = export_scenes(tmp_path, N, seed=SEED, side=SIDE, layout="nyud")
    n = 0
    for split in ("train", "test"):
        with (root / f"nyu2_{split}.csv").open(newline="") as file:
            for colours, depth in csv.reader(file):
                scene = render_scene(SEED, int(Path(colours).name[:5]), SIDE)
                assert (pixels(root / colours) == scene.image.transpose(1, 2, 0)).all()
                stored = pixels(root / depth)
                assert stored.dtype == np.uint16
                np.testing.assert_allclose(stored / 1000, scene.depth, atol=0.00051)
                n += 1
    assert n == N


def test_every_export_lists_labels_and_captions(tmp_path) -> None:
    root = export_scenes(tmp_path, 2, seed=SEED, side=16, layout="nyud")
    rows = index_rows(root)
    assert [row["split"] for row in rows] == ["train", "held out"]
    for index, row in enumerate(rows):
        scene = render_scene(SEED, index, 16)
        assert row["caption"] == scene.caption
        assert row["leftmost_shape"] == scene.labels["leftmost_shape"]
        assert (root / row["file"]).exists()


@pytest.mark.parametrize(
    ("n", "side", "layout", "message"),
    [
        (1, 16, "imagenet", "n = 1: an export needs two scenes"),
        (4, 0, "imagenet", "side = 0"),
        (4, 16, "coco", "unknown layout 'coco'.*imagenet"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_written(
    tmp_path, n, side, layout, message
) -> None:
    with pytest.raises(ConfigError, match=message):
        export_scenes(tmp_path, n, seed=0, side=side, layout=layout)
    assert not list(tmp_path.iterdir())
