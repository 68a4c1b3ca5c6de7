"""ADE20K in its true layout, the exports of scenes, and masks that cannot be right."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitscope.embedded.export import export_scenes
from vitscope.embedded.scene import render_scene
from vitscope.embedded.vocabulary import MASK_CLASSES
from vitscope.errors import ImageSetError
from vitscope.images.ade20k import AdeSplit, MaskedImages, read_ade20k


def write_pair(root: Path, stem: str, mask: np.ndarray, size: tuple[int, int]) -> Path:
    """One training picture of (width, height), and its annotation."""
    picture = root / "images" / "training" / f"{stem}.jpg"
    annotation = root / "annotations" / "training" / f"{stem}.png"
    for path in (picture, annotation):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 200, 30)).save(picture)
    Image.fromarray(mask).save(annotation)
    return annotation


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "ADEChallengeData2016"
    for n in range(3):
        mask = (np.arange(20, dtype=np.uint8).reshape(4, 5) + 50 * n) % 151
        write_pair(root, f"ADE_train_{n + 1:08d}", mask.astype(np.uint8), (5, 4))
    return root


def test_masks_come_with_their_pictures(root: Path) -> None:
    images = read_ade20k(root.parent, "training")
    assert images.ids == tuple(f"ADE_train_{n:08d}" for n in (1, 2, 3))
    assert len(images.classes) == 150
    picture, mask = images.load(2)
    assert picture.size == (5, 4) and picture.mode == "RGB"
    assert mask.tolist() == ((np.arange(20) + 100) % 151).reshape(4, 5).tolist()


def test_an_export_of_scenes_reads_back(tmp_path: Path) -> None:
    root = export_scenes(tmp_path, 10, seed=2, side=24, layout="ade20k")
    splits: dict[AdeSplit, int] = {"training": 8, "validation": 2}
    for split, n in splits.items():
        images = read_ade20k(root, split)
        assert len(images) == n and images.classes == MASK_CLASSES[1:]
        for row, stem in enumerate(images.ids):
            scene = render_scene(2, int(stem[-8:]) - 1, 24)
            assert (images.load(row)[1] == scene.mask).all()


def refused(root: Path, message: str) -> None:
    with pytest.raises(ImageSetError, match=message):
        read_ade20k(root, "training")


def test_a_mask_of_another_size_is_refused_before_anything_is_decoded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pair(root, "ADE_train_00000002", np.zeros((5, 4), np.uint8), (5, 4))
    monkeypatch.setattr(MaskedImages, "load", None)
    refused(root, r"00000002.png is 4 x 5 pixels, its image 5 x 4")


def test_labels_out_of_range_are_refused(root: Path) -> None:
    write_pair(root, "ADE_train_00000002", np.full((4, 5), 151, np.uint8), (5, 4))
    images = read_ade20k(root, "training")
    with pytest.raises(ImageSetError, match=r"00000002.png has label 151; .* to 150"):
        images.load(1)


def test_what_is_not_there_or_no_mask_is_refused(root: Path) -> None:
    colour = write_pair(root, "ADE_train_00000003", np.zeros((4, 5, 3), np.uint8), (5, 4))
    images = read_ade20k(root, "training")
    with pytest.raises(ImageSetError, match="is a RGB picture; a mask has one number per pixel"):
        images.load(2)
    colour.unlink()
    refused(root, "ADE_train_00000003 for one has no annotation")
    colour.write_text("text")
    refused(root, "cannot be read as an image")
    with pytest.raises(ImageSetError, match="images/validation does not exist"):
        read_ade20k(root, "validation")
    (root / "objectInfo150.txt").write_text("Idx\tName\n1\twall\n3\tsky\n")
    colour.unlink()
    (root / "images/training/ADE_train_00000003.jpg").unlink()
    refused(root, "classes numbered 1, 2")


def test_a_changed_mask_changes_the_digest(root: Path) -> None:
    before = read_ade20k(root, "training").digest
    assert read_ade20k(root, "training").digest == before
    write_pair(root, "ADE_train_00000002", np.ones((4, 5), np.uint8), (5, 4))
    assert read_ade20k(root, "training").digest != before
