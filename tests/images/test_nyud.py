"""NYU depth: the HDF5 file with its split, PNG pairs in each unit, and depth that cannot be."""

import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from vitscope.embedded.export import export_scenes
from vitscope.embedded.scene import render_scene
from vitscope.errors import ImageSetError
from vitscope.images import nyud
from vitscope.images.nyud import DepthImages, NyuSplit, read_nyud_folder, read_nyud_mat

N, HEIGHT, WIDTH = 5, 6, 8


def made_up(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures [N, H, W, 3] and depths [N, H, W] in metres."""
    random = np.random.default_rng(seed)
    pictures = random.integers(0, 256, (N, HEIGHT, WIDTH, 3), dtype=np.uint8)
    return pictures, random.uniform(0.7, 9.9, (N, HEIGHT, WIDTH)).astype(np.float32)


def write_splits(folder: Path) -> Path:
    splits = folder / "splits.mat"
    columns = {"trainNdxs": np.array([[2], [4]]), "testNdxs": np.array([[1], [5], [3]])}
    scipy.io.savemat(splits, columns)
    return splits


def write_mat(path: Path, **arrays: np.ndarray) -> Path:
    """What MATLAB's ``save -v7.3`` leaves: HDF5 with every array's axes reversed."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.create_group("#refs#")
        for name, array in arrays.items():
            file[name] = array
    return path


def test_the_labelled_file_is_read_by_its_split(tmp_path: Path) -> None:
    pictures, depths = made_up()
    path = write_mat(
        tmp_path / "labeled.mat",
        images=pictures.transpose(0, 3, 2, 1),
        depths=depths.transpose(0, 2, 1),
    )
    splits = write_splits(tmp_path)
    splits_of: dict[NyuSplit, list[int]] = {"train": [1, 3], "test": [0, 4, 2]}
    for split, rows in splits_of.items():
        images = read_nyud_mat(path, splits, split)
        assert len(images) == len(rows)
        for index, row in enumerate(rows):
            picture, depth = images.load(index)
            assert (np.asarray(picture) == pictures[row]).all()
            assert depth.dtype == np.float32 and (depth == depths[row]).all()


def test_a_labelled_file_without_depth_or_in_millimetres_is_refused(tmp_path: Path) -> None:
    pictures, depths = made_up()
    turned, splits = pictures.transpose(0, 3, 2, 1), write_splits(tmp_path)
    path = write_mat(tmp_path / "a.mat", images=turned, labels=depths)
    with pytest.raises(ImageSetError, match=r"holds no depth \('depths'\), only images, labels"):
        read_nyud_mat(path, splits, "train")
    path = write_mat(tmp_path / "b.mat", images=turned, depths=1000 * depths.transpose(0, 2, 1))
    with pytest.raises(ImageSetError, match=r"stored in metres; read as millimetres it would fit"):
        read_nyud_mat(path, splits, "train")
    path = write_mat(tmp_path / "c.mat", images=turned, depths=depths)
    with pytest.raises(ImageSetError, match="differ in size"):
        read_nyud_mat(path, splits, "train")
    path = write_mat(tmp_path / "d.mat", images=turned[:3], depths=depths[:3].transpose(0, 2, 1))
    with pytest.raises(ImageSetError, match=r"names picture 4, but .* holds 3"):
        read_nyud_mat(path, splits, "train")
    (tmp_path / "e.mat").write_text("no HDF5")
    with pytest.raises(ImageSetError, match="missing or no HDF5 file"):
        read_nyud_mat(tmp_path / "e.mat", splits, "train")


def test_without_h5py_the_command_that_installs_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImageSetError, match=r"pip install 'vitscope\[nyud\]'"):
        read_nyud_mat(tmp_path / "labeled.mat", tmp_path / "splits.mat", "train")


def test_splits_that_are_none_are_refused(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "other.mat", {"trainNdxs": np.array([1])})
    with pytest.raises(ImageSetError, match="it lacks testNdxs"):
        nyud._split_rows(tmp_path / "other.mat", "train")
    both = {"trainNdxs": np.array([1, 2]), "testNdxs": np.array([2, 3])}
    scipy.io.savemat(tmp_path / "other.mat", both)
    with pytest.raises(ImageSetError, match="overlap"):
        nyud._split_rows(tmp_path / "other.mat", "train")
    with pytest.raises(ImageSetError, match=r"read the split of NYUd.*: there is no such file"):
        nyud._split_rows(tmp_path / "none.mat", "train")
    for odd in (1.5, np.nan, np.inf, "one"):
        scipy.io.savemat(tmp_path / "odd.mat", {"trainNdxs": [odd], "testNdxs": [3]})
        with pytest.raises(ImageSetError, match="no lists of whole numbers"):
            nyud._split_rows(tmp_path / "odd.mat", "train")
    scipy.io.savemat(tmp_path / "doubles.mat", {"trainNdxs": [1.0, 4.0], "testNdxs": [3.0]})
    assert nyud._split_rows(tmp_path / "doubles.mat", "train").tolist() == [1, 4]


STORED = {
    "millimetres": lambda metres: np.rint(1000 * metres).astype(np.uint16),
    "byte-of-10m": lambda metres: np.rint(25.5 * metres).astype(np.uint8),
}


def write_pairs(root: Path, unit: str, *, listing: bool) -> np.ndarray:
    pictures, depths = made_up()
    folder = root / "nyu2_train" / "office_1"
    folder.mkdir(parents=True)
    lines: list[str] = []
    for row in range(N):
        Image.fromarray(pictures[row]).save(folder / f"{row}_colors.png")
        Image.fromarray(STORED[unit](depths[row])).save(folder / f"{row}_depth.png")
        # as the release on Kaggle writes it
        lines.append(
            ",".join(f"data/nyu2_train/office_1/{row}_{k}.png" for k in ("colors", "depth"))
        )
    if listing:
        (root / "nyu2_train.csv").write_text("\n".join(lines) + "\n")
    return depths


@pytest.mark.parametrize("unit", STORED)
@pytest.mark.parametrize("listing", [True, False])
def test_pairs_are_read_in_their_unit(tmp_path: Path, unit, listing: bool) -> None:
    depths = write_pairs(tmp_path, unit, listing=listing)
    images = read_nyud_folder(tmp_path, "train", unit=unit)
    assert images.ids[3] == "nyu2_train/office_1/3_colors.png"
    step = nyud.METRES[unit]
    for row in range(N):
        np.testing.assert_allclose(images.load(row)[1], depths[row], atol=0.51 * step)


def test_a_wrong_unit_is_refused_with_the_one_that_fits(tmp_path: Path) -> None:
    write_pairs(tmp_path, "millimetres", listing=False)
    with pytest.raises(ImageSetError, match="read as millimetres it would fit"):
        read_nyud_folder(tmp_path, "train", unit="metres")
    write_pairs(tmp_path / "bytes", "byte-of-10m", listing=False)
    with pytest.raises(ImageSetError, match=r"median depth would be 0.* byte-of-10m it would fit"):
        read_nyud_folder(tmp_path / "bytes", "train", unit="millimetres")


def test_damaged_pairs_are_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path, "millimetres", listing=True)
    folder = tmp_path / "nyu2_train" / "office_1"
    Image.new("I;16", (3, 3), 2000).save(folder / "0_depth.png")
    with pytest.raises(ImageSetError, match="depth has 3 x 3 pixels, the picture 8 x 6"):
        read_nyud_folder(tmp_path, "train")
    Image.new("RGB", (8, 6)).save(folder / "0_depth.png")
    with pytest.raises(ImageSetError, match="has colours"):
        read_nyud_folder(tmp_path, "train")
    (folder / "0_depth.png").unlink()
    with pytest.raises(ImageSetError, match=r"0_depth.png does not exist"):
        read_nyud_folder(tmp_path, "train")
    with pytest.raises(ImageSetError, match=r"neither nyu2_test.csv nor \*_colors.png"):
        read_nyud_folder(tmp_path, "test")


def test_an_export_of_scenes_reads_back(tmp_path: Path) -> None:
    root = export_scenes(tmp_path, 10, seed=3, side=24, layout="nyud")
    found: list[DepthImages] = [read_nyud_folder(root, split) for split in ("train", "test")]
    assert [len(images) for images in found] == [8, 2]
    for images in found:
        for row, image_id in enumerate(images.ids):
            scene = render_scene(3, int(Path(image_id).name[:5]), 24)
            picture, depth = images.load(row)
            assert (np.asarray(picture) == scene.image.transpose(1, 2, 0)).all()
            np.testing.assert_allclose(depth, scene.depth, atol=0.00051)
