"""ImageNet as distributed: class folders, flat validation, and what may be wrong with either."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from vitscope.embedded.export import export_scenes
from vitscope.embedded.scene import render_scene
from vitscope.errors import ImageSetError
from vitscope.images.imagenet import (
    open_imagenet,
    read_class_folders,
    read_flat_validation,
    read_synset_order,
)

WNIDS = ("n02119789", "n01440764", "n02100735")
"""In the order of ILSVRC2012 ids, which is not that of the class folders."""

TRUTH = (3, 1, 2, 1)


def picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 5, 3), value, dtype=np.uint8)).save(path, quality=100)


def write_meta(path: Path) -> None:
    """A development kit's table: the leaves, and an inner node of the hierarchy behind them."""
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(i + 1, wnid, "x", 0) for i, wnid in enumerate(WNIDS)]
    rows.append((4, "n00001740", "entity", 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"synsets": np.array(rows, dtype=kind)[:, None]})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for value, wnid in enumerate(WNIDS):
        for n in range(2):
            picture(tmp_path / "train" / wnid / f"{wnid}_{n}.JPEG", 40 * value)
    for n in range(1, 5):
        picture(tmp_path / "val" / f"ILSVRC2012_val_{n:08d}.JPEG", 40 * n)
    kit = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    write_meta(kit / "meta.mat")
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{i}\n" for i in TRUTH))
    return tmp_path


def test_the_flat_validation_set_gets_the_labels_of_the_class_folders(root: Path) -> None:
    train, validation = open_imagenet(root)
    assert train.classes == tuple(sorted(WNIDS)) == validation.classes
    assert [train.classes[y] for y in train.labels] == [Path(i).parent.name for i in train.ids]
    assert [validation.classes[y] for y in validation.labels] == [WNIDS[i - 1] for i in TRUTH]
    image, label = validation.load(2)
    assert image.size == (5, 6) and abs(int(np.asarray(image)[0, 0, 0]) - 120) < 3
    assert int(label) == validation.labels[2]


def test_the_order_of_ids_may_be_a_text_file(root: Path) -> None:
    text = root / "synsets.txt"
    text.write_text("".join(f"{wnid} some words\n" for wnid in WNIDS))
    kit = root / "ILSVRC2012_devkit_t12" / "data"
    assert read_synset_order(text) == read_synset_order(kit / "meta.mat") == WNIDS
    (kit / "meta.mat").unlink()
    assert open_imagenet(root)[1].labels.tolist() == [1, 2, 0, 2]


def test_an_export_of_scenes_reads_back(tmp_path: Path) -> None:
    train, validation = open_imagenet(
        export_scenes(tmp_path, 400, seed=1, side=8, layout="imagenet")
    )
    assert (len(train), len(validation)) == (320, 80) and train.classes == validation.classes
    for images in (train, validation):
        for row, image_id in enumerate(images.ids):
            scene = render_scene(1, int(Path(image_id).stem.rpartition("_")[2]), 8)
            picture, label = images.load(row)
            assert picture.size == (8, 8)
            assert images.classes[int(label)] == scene.labels["place"]


def test_a_change_of_a_file_or_a_label_changes_the_digest(root: Path) -> None:
    before = open_imagenet(root)
    truth = root / "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("3\n1\n2\n2\n")
    after = open_imagenet(root)
    assert before[0].digest == after[0].digest and before[1].digest != after[1].digest
    (root / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG").unlink()
    assert open_imagenet(root)[0].digest != before[0].digest


def refuse(message: str):
    return pytest.raises(ImageSetError, match=message)


def test_missing_parts_are_named(root: Path) -> None:
    kit = root / "ILSVRC2012_devkit_t12" / "data"
    truth = kit / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("1\n2\n3\n")
    with refuse(r"holds 4 images, but .* has 3 labels"):
        open_imagenet(root)
    truth.write_text("1\n2\n3\n4\n")
    with refuse("has label 4, but .* defines 1 to 3"):
        open_imagenet(root)
    truth.write_text("1\n2\ncat\n4\n")
    with refuse("line 3: 'cat'"):
        open_imagenet(root)
    truth.unlink()
    with refuse("take it from the development kit"):
        open_imagenet(root)
    empty = root / "empty"
    empty.mkdir()
    with refuse("no folder 'train'; found there: nothing"):
        open_imagenet(empty)


def test_class_folders_must_be_the_same_in_both_sets(root: Path) -> None:
    classes = (*sorted(WNIDS), "n09999999")
    with refuse("lacks 1 class folders: n09999999"):
        read_class_folders(root / "train", classes=classes)
    with refuse("1 class folders that the training set lacks: n02119789"):
        read_class_folders(root / "train", classes=sorted(WNIDS)[:2])
    (root / "train" / "n0").mkdir()
    with refuse("n0 holds no images"):
        read_class_folders(root / "train")
    with refuse("has no class folders"):
        read_class_folders(root / "val")
    with refuse("does not exist"):
        read_class_folders(root / "test")
    truth = root / "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
    with refuse("images of n01440764, for which the training set has no class folder"):
        read_flat_validation(
            root / "val", truth, truth.with_name("meta.mat"), classes=(WNIDS[0], WNIDS[2])
        )


def test_files_that_are_not_what_they_should_be(root: Path, tmp_path: Path) -> None:
    (root / "meta.mat").write_text("not MATLAB")
    with refuse("cannot read ImageNet's classes .*meta.mat: .* data set's own page"):
        read_synset_order(root / "meta.mat")
    (root / "twice.txt").write_text("n1\nn1\n")
    with refuse("names a class twice"):
        read_synset_order(root / "twice.txt")
    train = read_class_folders(root / "train")
    train.paths[1].write_bytes(b"\xff\xd8 broken")
    with refuse("restore it, or remove it with its label"):
        train.load(1)
