"""ADE20K scene parsing (``ADEChallengeData2016``): 150 classes, 0 is ignored."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitscope.errors import ImageSetError
from vitscope.images.decode import decode_labelled, opened_raw
from vitscope.images.listing import listing_checksum, natural_key, read_lines

_ROOT = "ADEChallengeData2016"
_N_CLASSES = 150
_NAMES = "objectInfo150.txt"

AdeSplit = Literal["training", "validation"]

_PLAIN_MODES = frozenset(("L", "P", "I", "I;16", "1"))


@dataclass(frozen=True, eq=False)
class MaskedImages:
    """Images with one class per pixel.

    Attributes:
        ids: the files' stems.
        images: where the pictures are.
        masks: where their annotations are.
        classes: name of mask value 1, 2, …; 0 is ignored.
    """

    ids: tuple[str, ...]
    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int) -> tuple[Image.Image, NDArray[np.int64]]:
        """Return an image as RGB, and its mask [H, W] with 0 = ignore.

        Raises:
            ImageSetError: a file cannot be decoded, the sizes differ, or a label is out of range.
        """
        picture, mask = decode_labelled(self.images[index]), _read_mask(self.masks[index])
        if mask.shape != (picture.height, picture.width):
            raise ImageSetError(_size_fault(self.masks[index], mask.shape[::-1], picture.size))
        top = int(mask.max())
        if top > len(self.classes):
            raise ImageSetError(
                f"{self.masks[index]} has label {top}; labels are 0 (ignored) to "
                f"{len(self.classes)}: was the full ADE20K taken for the 150-class challenge set?"
            )
        return picture, mask

    @cached_property
    def digest(self) -> str:
        """Hash of every file's name, size and modification time."""
        both = (*self.images, *self.masks)
        return listing_checksum(both, [path.name for path in both])


def read_ade20k(root: Path, split: AdeSplit) -> MaskedImages:
    """Read ``images/<split>/*.jpg`` with ``annotations/<split>/*.png``, matched by stem.

    Every file's size is compared before anything is decoded. Where ``objectInfo150.txt`` is there,
    it names the classes, and says how many there are.

    Args:
        root: ``ADEChallengeData2016``, or the folder that holds it.
        split: training or validation.

    Raises:
        ImageSetError: a folder or an annotation is missing, or a mask has another size than its
            image.
    """
    if (root / _ROOT).is_dir():
        root = root / _ROOT
    pictures, masks = _stems(root / "images" / split), _stems(root / "annotations" / split)
    lonely = sorted(set(pictures) ^ set(masks), key=natural_key)
    if lonely:
        lacks = "annotation" if lonely[0] in pictures else "image"
        raise ImageSetError(
            f"{root}, {split}: {len(lonely)} files without their partner, {lonely[0]} for one has "
            f"no {lacks}; unpack the archive again"
        )
    stems = tuple(sorted(pictures, key=natural_key))
    for stem in stems:
        size, other = _size(pictures[stem]), _size(masks[stem])
        if size != other:
            raise ImageSetError(_size_fault(masks[stem], other, size))
    return MaskedImages(
        ids=stems,
        images=tuple(pictures[stem] for stem in stems),
        masks=tuple(masks[stem] for stem in stems),
        classes=_class_names(root / _NAMES),
    )


def _stems(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ImageSetError(
            f"{folder} does not exist; {_ROOT} has images/ and annotations/, each with training/ "
            "and validation/"
        )
    files = [path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".png")]
    if not files:
        raise ImageSetError(f"{folder} holds no .jpg or .png files")
    return {path.stem: path for path in files}


def _size(path: Path) -> tuple[int, int]:
    with opened_raw(path, "an image") as picture:
        return picture.size


def _size_fault(mask: Path, size: tuple[int, ...], expected: tuple[int, int]) -> str:
    return (
        f"{mask} is {size[0]} x {size[1]} pixels, its image {expected[0]} x {expected[1]}: "
        "a mask must have the size of its image"
    )


def _read_mask(path: Path) -> NDArray[np.int64]:
    with opened_raw(path, "a mask") as picture:
        if picture.mode not in _PLAIN_MODES:
            raise ImageSetError(
                f"{path} is a {picture.mode} picture; a mask has one number per pixel "
                f"(the colour-coded masks of the full ADE20K are not {_ROOT})"
            )
        return np.asarray(picture).astype(np.int64)


def _class_names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return tuple(f"class {number}" for number in range(1, _N_CLASSES + 1))
    rows = [line.split("\t") for line in read_lines(path)[1:] if line]
    names = tuple(row[-1].strip() for row in rows)
    if [row[0].strip() for row in rows] != [str(i) for i in range(1, len(rows) + 1)]:
        raise ImageSetError(f"{path}: expected classes numbered 1, 2, … one a line, tab-separated")
    return names
