"""Sets of images: any folder or list file, with stable ids, class labels and natural order."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self, final

from pydantic import Field, model_validator

from vitscope.images.decode import PIL_PIXEL_LIMIT
from vitscope.images.listing import list_images
from vitscope.settings import Settings


class ImageSettings(Settings):
    """Which images are read, and how bad they may be."""

    train: Path
    """Images that the SAE is trained on: a folder, a text file of one path a line, or rendered
    scenes, ``scenes:N?seed=S&side=PIXELS``."""

    eval: Path | None = None
    """Images that features are scored on; None takes the training images."""

    train_limit: int | None = Field(default=None, ge=1)
    """At most so many training images, evenly spread over the natural order."""

    eval_limit: int | None = Field(default=None, ge=1)
    """At most so many evaluation images, evenly spread over the natural order."""

    max_skipped: float = Field(default=0.05, ge=0, le=1)
    """Share of files that may be unusable; more is an error."""

    max_pixels: int = Field(default=PIL_PIXEL_LIMIT, ge=1, le=PIL_PIXEL_LIMIT)
    """An image with more pixels is skipped as a decompression bomb."""

    workers: int = Field(default=0, ge=0)
    """Decoding threads; 0 takes one per core."""

    @model_validator(mode="after")
    def _limit_what_is_there(self) -> Self:
        if self.eval is None and self.eval_limit is not None:
            raise ValueError("eval_limit needs eval; without it the training images are scored")
        return self


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image of a set.

    Attributes:
        id: posix path relative to the set's root; the key of every draw and every table.
        path: where the file is; of a rendered scene, its address.
        label: the class folder, which is the first folder of a nested id; None in a flat set.
    """

    id: str
    path: Path
    label: str | None


@final
class ImageFolder:
    """The images of a folder or list file, in natural order; nothing is opened yet.

    Args:
        path: a folder (flat, class folders, nested), or a text file of one path a line (blank
            lines and ``#`` lines are passed over; relative paths start from the list's folder).
        limit: at most so many images, evenly spread over the natural order.

    Raises:
        ImageSetError: the path is missing or holds no image candidates.
    """

    def __init__(self, path: Path | str, *, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        self.root, found = list_images(Path(path))
        kept = min(len(found), limit or len(found))
        spread = [found[i * len(found) // kept] for i in range(kept)]
        base = _label_base(self.root, found)
        self.refs: tuple[ImageRef, ...] = tuple(
            ImageRef(image_id, file, _label(image_id, base)) for image_id, file in spread
        )

    def __len__(self) -> int:
        return len(self.refs)

    def __iter__(self) -> Iterator[ImageRef]:
        return iter(self.refs)

    def __getitem__(self, index: int) -> ImageRef:
        return self.refs[index]

    @cached_property
    def listing_digest(self) -> str:
        """Hash of every id, size and modification time: changes when a file of the set does."""
        digest = hashlib.sha256()
        for ref in self.refs:
            try:
                state = ref.path.stat()
                version = f"{state.st_size} {state.st_mtime_ns}"
            except OSError:
                version = "missing"
            digest.update(f"{ref.id}\0{version}\n".encode())
        return digest.hexdigest()


def _label_base(root: Path, found: list[tuple[str, Path]]) -> str:
    """Return the id of the folder that holds the class folders: the root, or "" for short.

    The files of a list may lie outside the list's folder; theirs is the folder common to all.
    """
    if not any(image_id.startswith("../") for image_id, _ in found):
        return ""
    # lexical, so that a symlinked class folder keeps its name
    folders = [os.path.normpath(file.absolute().parent) for _, file in found]
    return os.path.relpath(os.path.commonpath(folders), root)


def _label(image_id: str, base: str) -> str | None:
    inner = os.path.relpath(image_id, base) if base else image_id
    folder, separator, _ = inner.partition("/")
    return folder if separator else None
