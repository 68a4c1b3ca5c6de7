"""NYU Depth v2: the labelled ``.mat`` with its standard split, or folders of PNG pairs."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitscope.errors import ImageSetError
from vitscope.images.decode import PIL_PIXEL_LIMIT, decode_labelled, opened_raw
from vitscope.images.listing import listing_checksum, natural_key
from vitscope.images.matlab import read_matlab

NyuSplit = Literal["train", "test"]
DepthUnit = Literal["metres", "millimetres", "byte-of-10m"]

METRES: dict[DepthUnit, float] = {"metres": 1.0, "millimetres": 1e-3, "byte-of-10m": 10.0 / 255.0}
"""What one stored unit is in metres; ``byte-of-10m`` is 8-bit depth with 255 at ten metres."""

PLAUSIBLE_MEDIAN = (0.2, 100.0)
"""Metres between which the median depth of a picture lies, indoors or out."""

LOOKED_AT = 8
"""Depth maps whose median is looked at before anything is used, evenly spread."""

_COLOURS = 3

_INSTALL = "pip install 'vitscope[nyud]'"

DepthMap = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class DepthImages:
    """Pictures with one depth per pixel.

    Attributes:
        ids: one name per picture.
        read: index -> picture as RGB, and depth [H, W] in metres, 0 where unknown.
        digest: hash of what lies on the disk.
    """

    ids: tuple[str, ...]
    read: Callable[[int], tuple[Image.Image, DepthMap]]
    digest: str

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int) -> tuple[Image.Image, DepthMap]:
        """Return a picture as RGB, and its depth [H, W] in metres, 0 where unknown.

        Raises:
            ImageSetError: a file cannot be decoded, or the sizes differ.
        """
        picture, depth = self.read(index)
        if depth.shape != (picture.height, picture.width):
            raise ImageSetError(
                f"{self.ids[index]}: depth has {depth.shape[1]} x {depth.shape[0]} pixels, the "
                f"picture {picture.width} x {picture.height}; they must be registered"
            )
        return picture, np.nan_to_num(depth, nan=0.0, posinf=0.0, neginf=0.0)


def read_nyud_mat(path: Path, splits: Path, split: NyuSplit) -> DepthImages:
    """Read ``nyu_depth_v2_labeled.mat`` (HDF5): registered pictures and filled-in depth in metres.

    Args:
        path: the labelled data set.
        splits: ``splits.mat`` with ``trainNdxs`` and ``testNdxs``, counted from 1.
        split: train (795 pictures) or test (654).

    Raises:
        ImageSetError: h5py is not installed, a file is missing or of another kind, it has no depth,
            its split names pictures that are not there, or depth is not in metres.
    """
    file, lock = _open_archive(path), Lock()
    rows, n = _split_rows(splits, split), int(file["depths"].shape[0])
    if rows.min() < 1 or rows.max() > n:
        raise ImageSetError(
            f"{splits} names picture {int(rows.max())}, but {path} holds {n}: they must belong "
            "together"
        )
    ids = tuple(f"{path.stem}-{row:04d}" for row in rows)
    digest = listing_checksum([path, splits], [path.name, split])

    def read(index: int) -> tuple[Image.Image, DepthMap]:
        return _read_archive(path, file, lock, int(rows[index]) - 1)

    found = DepthImages(ids, read, digest)
    _require_plausible(found, path, "metres")
    return found


def read_nyud_folder(
    root: Path, split: NyuSplit, *, unit: DepthUnit = "millimetres"
) -> DepthImages:
    """Read PNG pairs: those that ``nyu2_<split>.csv`` lists, else ``*_colors`` with ``*_depth``.

    Args:
        root: holds ``nyu2_<split>.csv`` (picture, depth a line) or the folder ``nyu2_<split>``.
        split: train or test.
        unit: of the depth files.

    Raises:
        ImageSetError: nothing is there, a file of a pair is missing, or the depths cannot be in
            ``unit``.
    """
    pairs = _pairs(root, split)
    missing = next((path for pair in pairs for path in pair if not path.is_file()), None)
    if missing is not None:
        raise ImageSetError(f"{missing} does not exist, but is one of a pair of {root}, {split}")
    scale = METRES[unit]

    def read(index: int) -> tuple[Image.Image, DepthMap]:
        picture, depth = pairs[index]
        return decode_labelled(picture), _read_depth(depth) * np.float32(scale)

    both = [path for pair in pairs for path in pair]
    ids = tuple(pair[0].relative_to(root).as_posix() for pair in pairs)
    digest = listing_checksum(both, [f"{path.name} {unit}" for path in both])
    found = DepthImages(ids, read, digest)
    _require_plausible(found, root, unit)
    return found


def _open_archive(path: Path) -> Any:
    """Open the HDF5 file, its pictures and depth maps found to belong together."""
    try:
        h5py: Any = import_module("h5py")
    except ImportError:
        raise ImageSetError(f"reading {path} needs h5py: {_INSTALL}") from None
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError, ValueError) as error:
        raise ImageSetError(f"{path} is missing or no HDF5 file (MATLAB -v7.3): {error}") from None
    try:
        names = sorted(file.keys())
    except (RuntimeError, ValueError) as error:
        raise ImageSetError(f"{path} is damaged: {error}") from None
    for name, what in (("images", "pictures"), ("depths", "depth")):
        if not hasattr(file.get(name), "shape"):
            listed = ", ".join(n for n in names if not n.startswith("#")) or "nothing"
            raise ImageSetError(
                f"{path} holds no {what} ('{name}'), only {listed}; use "
                "nyu_depth_v2_labeled.mat, or folders of PNG pairs"
            )
    pictures, depths = file["images"].shape, file["depths"].shape
    if (pictures[:2], pictures[2:]) != ((*depths[:1], _COLOURS), depths[1:]):
        raise ImageSetError(f"{path}: pictures and depth maps differ in size or number")
    if len(depths) != 3 or depths[1] * depths[2] > PIL_PIXEL_LIMIT:
        raise ImageSetError(f"{path}: its depth maps are of {depths}, which are no images")
    return file


def _read_archive(path: Path, file: Any, lock: Lock, row: int) -> tuple[Image.Image, DepthMap]:
    try:
        with lock:
            pixels, depth = file["images"][row], file["depths"][row]
        # MATLAB stores columns first, so its arrays come transposed
        picture = Image.fromarray(np.ascontiguousarray(np.asarray(pixels).transpose(2, 1, 0)))
        return picture, np.ascontiguousarray(np.asarray(depth, dtype=np.float32).T)
    except Exception as error:  # HDF5 reports damage in many ways
        why = " ".join(str(error).split())
        raise ImageSetError(f"{path}, picture {row + 1}, is damaged: {why}") from None


def _split_rows(path: Path, split: NyuSplit) -> NDArray[np.int64]:
    columns = read_matlab(path, ("trainNdxs", "testNdxs"), "the split of NYUd (splits.mat)")
    if not all(_is_row(value) for column in columns for value in column):
        raise ImageSetError(f"{path}: trainNdxs and testNdxs are no lists of whole numbers")
    train, test = (np.array([int(value) for value in column], np.int64) for column in columns)
    if np.intersect1d(train, test).size or not train.size or not test.size:
        raise ImageSetError(f"{path}: its training and test pictures overlap, or one set is empty")
    return train if split == "train" else test


def _is_row(value: float | str) -> bool:
    # MATLAB has no whole numbers unless asked: 3 may be stored as 3.0
    return not isinstance(value, str) and float(value).is_integer() and abs(value) < 2**31


def _pairs(root: Path, split: NyuSplit) -> list[tuple[Path, Path]]:
    listing = root / f"nyu2_{split}.csv"
    if listing.is_file():
        try:
            with listing.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.reader(file) if row]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ImageSetError(f"{listing} cannot be read: {error}") from None
        if not rows or any(len(row) < 2 for row in rows):
            raise ImageSetError(f"{listing}: every line must name a picture and its depth")
        return [(_below(root, a), _below(root, b)) for a, b, *_ in rows]
    folder = root / f"nyu2_{split}"
    colours = sorted(folder.rglob("*_colors.png"), key=lambda path: natural_key(path.as_posix()))
    if not colours:
        raise ImageSetError(
            f"{root} has neither {listing.name} nor *_colors.png in {folder.name}/; see "
            "docs/probes.md for the layout"
        )
    return [(path, path.with_name(path.name.replace("_colors", "_depth"))) for path in colours]


def _below(root: Path, name: str) -> Path:
    # the Kaggle release's lists start with data/, and lie in it
    inner = root / name
    return inner if inner.is_file() else root / name.removeprefix("data/")


def _read_depth(path: Path) -> DepthMap:
    with opened_raw(path, "depth") as picture:
        values = np.asarray(picture)
    if values.ndim != 2:
        raise ImageSetError(f"{path} has colours; depth has one number per pixel")
    return values.astype(np.float32)


def _require_plausible(images: DepthImages, where: Path, unit: DepthUnit) -> None:
    """Refuse depth whose median no picture can have: metres and millimetres confused."""
    picked = sorted({i * len(images) // LOOKED_AT for i in range(LOOKED_AT)})
    maps = [images.load(index)[1] for index in picked]
    known = [float(np.median(depth[depth > 0])) for depth in maps if (depth > 0).any()]
    if not known:
        raise ImageSetError(f"{where}: no pixel of {len(maps)} depth maps is above 0")
    median, (low, high) = float(np.median(known)), PLAUSIBLE_MEDIAN
    if low <= median <= high:
        return
    stored = median / METRES[unit]
    fits = [name for name, scale in METRES.items() if low <= stored * scale <= high]
    hint = f"; read as {' or '.join(fits)} it would fit" if fits else ""
    raise ImageSetError(
        f"{where}: the median depth would be {median:.3g} m if depth is stored in {unit}{hint}. "
        "Say which unit the files have"
    )
