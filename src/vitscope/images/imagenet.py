"""ImageNet-1K as it is distributed: class folders, or the flat validation set with its labels."""

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitscope.errors import ImageSetError
from vitscope.images.decode import decode_labelled
from vitscope.images.formats import IMAGE_SUFFIXES
from vitscope.images.listing import listing_checksum, natural_key, read_lines
from vitscope.images.matlab import read_matlab

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
"""One ILSVRC2012 id (from 1) a line, in the order of the validation files."""

META, SYNSETS = "meta.mat", "synsets.txt"
"""What an id means: the development kit's table, or one WordNet id a line in the order of ids."""

_META_FIELDS = ("synsets.ILSVRC2012_ID", "synsets.WNID", "synsets.num_children")
"""What is read of ``meta.mat``: every class of the tree, of which the leaves are pictured."""

TRAIN_FOLDERS = ("train", "ILSVRC2012_img_train")
VALIDATION_FOLDERS = ("val", "validation", "ILSVRC2012_img_val")
DEVKIT_FOLDERS = ("", "devkit/data", "ILSVRC2012_devkit_t12/data", "ILSVRC/devkit/data")

_NAMED_IN_ERROR = 5


@dataclass(frozen=True, eq=False)
class ClassifiedImages:
    """Images with one class each.

    Attributes:
        ids: path of each image relative to the set's folder.
        paths: where the files are.
        labels: index in ``classes`` of each image, [N].
        classes: names of the class folders (WordNet ids for ImageNet), in the order of labels.
    """

    ids: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int) -> tuple[Image.Image, NDArray[np.int64]]:
        """Return an image as RGB, and its label as an array without axes.

        Raises:
            ImageSetError: the file cannot be decoded.
        """
        return decode_labelled(self.paths[index]), np.asarray(self.labels[index])

    @cached_property
    def digest(self) -> str:
        """Hash of every id, label, size and modification time."""
        return listing_checksum(
            self.paths, [f"{i} {y}" for i, y in zip(self.ids, self.labels, strict=True)]
        )


def open_imagenet(root: Path) -> tuple[ClassifiedImages, ClassifiedImages]:
    """Return the training and the validation set below ``root``.

    ``train`` holds class folders; ``val`` holds the same class folders, or the images themselves
    beside :data:`GROUND_TRUTH` and the order of its ids (``meta.mat`` or ``synsets.txt``).

    Raises:
        ImageSetError: a folder, a class folder or a label file is missing, or they do not agree.
    """
    train = read_class_folders(_folder(root, TRAIN_FOLDERS))
    folder = _folder(root, VALIDATION_FOLDERS)
    if any(entry.is_dir() for entry in _visible(folder)):
        return train, read_class_folders(folder, classes=train.classes)
    truth = _devkit_file(root, folder, (GROUND_TRUTH,))
    order = _devkit_file(root, folder, (META, SYNSETS))
    return train, read_flat_validation(folder, truth, order, classes=train.classes)


def read_class_folders(folder: Path, *, classes: Sequence[str] | None = None) -> ClassifiedImages:
    """Read ``folder/<class>/<image>``; the label is the class's place in natural order.

    Args:
        folder: holds one folder per class.
        classes: the classes that must be there, in the order of labels; None takes those found.

    Raises:
        ImageSetError: a class folder is missing, unknown or empty, or there is none.
    """
    if not folder.is_dir():
        raise ImageSetError(f"{folder} does not exist; give a folder with one folder per class")
    found = sorted((e.name for e in _visible(folder) if e.is_dir()), key=natural_key)
    if not found:
        raise ImageSetError(f"{folder} has no class folders; images lie in one folder per class")
    names = tuple(found if classes is None else classes)
    _require_same_classes(folder, set(found), names)
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        files = _images_in(folder / name)
        if not files:
            raise ImageSetError(f"class folder {folder / name} holds no images; fill or remove it")
        paths += files
        labels += [label] * len(files)
    ids = tuple(path.relative_to(folder).as_posix() for path in paths)
    return ClassifiedImages(ids, tuple(paths), np.asarray(labels, dtype=np.int64), names)


def read_flat_validation(
    folder: Path, ground_truth: Path, synsets: Path, *, classes: Sequence[str] | None = None
) -> ClassifiedImages:
    """Read the flat validation set: files in natural order, one id of ``ground_truth`` each.

    Args:
        folder: holds ``ILSVRC2012_val_00000001.JPEG`` and so on.
        ground_truth: one id from 1 a line.
        synsets: the development kit's ``meta.mat``, or a text file of WordNet ids in id order.
        classes: WordNet ids in the order of labels; None sorts them.

    Raises:
        ImageSetError: other numbers of images and labels, an id out of range, an unknown class.
    """
    paths = _images_in(folder)
    wnids, ids = read_synset_order(synsets), _read_ids(ground_truth)
    if len(ids) != len(paths):
        raise ImageSetError(
            f"{folder} holds {len(paths)} images, but {ground_truth} has {len(ids)} labels; "
            "they must be of the same release, and complete"
        )
    wrong = next((i for i in ids if not 1 <= i <= len(wnids)), None)
    if wrong is not None:
        raise ImageSetError(
            f"{ground_truth} has label {wrong}, but {synsets} defines 1 to {len(wnids)}"
        )
    names = tuple(sorted(wnids) if classes is None else classes)
    place = {name: label for label, name in enumerate(names)}
    lost = sorted({wnids[i - 1] for i in ids} - set(place))
    if lost:
        raise ImageSetError(
            f"{ground_truth} has images of {', '.join(lost[:_NAMED_IN_ERROR])}, for which the "
            "training set has no class folder"
        )
    labels = np.asarray([place[wnids[i - 1]] for i in ids], dtype=np.int64)
    return ClassifiedImages(tuple(path.name for path in paths), tuple(paths), labels, names)


def read_synset_order(path: Path) -> tuple[str, ...]:
    """Return the WordNet id of each ILSVRC2012 id, from 1, of ``meta.mat`` or a text file.

    Raises:
        ImageSetError: the file is missing, or is neither.
    """
    if path.suffix == ".mat":
        return _meta_order(path)
    lines = [line.split()[0] for line in read_lines(path) if line.strip()]
    if len(set(lines)) != len(lines):
        raise ImageSetError(f"{path} names a class twice; one WordNet id a line is expected")
    return tuple(lines)


def _folder(root: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    there = ", ".join(sorted(e.name for e in _visible(root))[:_NAMED_IN_ERROR]) or "nothing"
    raise ImageSetError(f"{root} has no folder '{names[0]}'; found there: {there}")


def _devkit_file(root: Path, folder: Path, names: Sequence[str]) -> Path:
    places = [folder, *(root / name for name in DEVKIT_FOLDERS)]
    for path in (place / name for name in names for place in places):
        if path.is_file():
            return path
    raise ImageSetError(
        f"{folder} has no class folders, and {' or '.join(names)} lies neither in it nor in "
        f"{root}: take it from the development kit (ILSVRC2012_devkit_t12/data)"
    )


def _require_same_classes(folder: Path, found: set[str], names: Sequence[str]) -> None:
    missing = [name for name in names if name not in found]
    if missing:
        near = difflib.get_close_matches(missing[0], sorted(found - set(names)), n=1)
        hint = f" (is '{near[0]}' meant for it?)" if near else ""
        listed = ", ".join(missing[:_NAMED_IN_ERROR])
        raise ImageSetError(f"{folder} lacks {len(missing)} class folders: {listed}{hint}")
    unknown = sorted(found - set(names))
    if unknown:
        raise ImageSetError(
            f"{folder} has {len(unknown)} class folders that the training set lacks: "
            f"{', '.join(unknown[:_NAMED_IN_ERROR])}"
        )


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise ImageSetError(f"cannot read folder {folder}: {error.strerror}") from error


def _images_in(folder: Path) -> list[Path]:
    names = [e.name for e in _visible(folder) if Path(e.name).suffix.lower() in IMAGE_SUFFIXES]
    return [folder / name for name in sorted(names, key=natural_key)]


def _read_ids(path: Path) -> list[int]:
    lines = [line.strip() for line in read_lines(path) if line.strip()]
    wrong = next((n for n, line in enumerate(lines, start=1) if not line.isdecimal()), None)
    if wrong is not None:
        raise ImageSetError(f"{path}, line {wrong}: '{lines[wrong - 1]}' is no label from 1 up")
    return [int(line) for line in lines]


def _meta_order(path: Path) -> tuple[str, ...]:
    numbers, wnids, children = read_matlab(path, _META_FIELDS, "ImageNet's classes (meta.mat)")
    try:
        pairs = [(int(n), str(wnid)) for n, wnid in zip(numbers, wnids, strict=True)]
        leaves = [int(n) == 0 for n in children]
        order = sorted(pair for pair, leaf in zip(pairs, leaves, strict=True) if leaf)
    except (ValueError, OverflowError) as error:
        raise ImageSetError(
            f"{path} is not the meta.mat of the ILSVRC2012 development kit: {error}"
        ) from None
    if [number for number, _ in order] != list(range(1, len(order) + 1)):
        raise ImageSetError(f"{path}: its classes are not numbered 1 to {len(order)}")
    return tuple(wnid for _, wnid in order)
