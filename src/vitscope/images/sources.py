"""Sets of images: a folder, a list file or rendered scenes, with stable ids and class labels."""

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Self, final
from urllib.parse import parse_qsl

from PIL import Image
from pydantic import Field, model_validator

from vitscope.draws import draw_key
from vitscope.embedded.scene import RENDERER, SceneAddress, scene_address, scene_place
from vitscope.errors import ImageSetError
from vitscope.images.decode import PIL_PIXEL_LIMIT, decode_image
from vitscope.images.listing import list_images, natural_key
from vitscope.settings import Settings

SCHEME = "scenes:"
DEFAULT_SIDE = 112
MOST_SCENES, MOST_SEED, MOST_SIDE = 10_000_000, 2**63 - 1, 4096
"""More scenes than ImageNet-21k has images, and larger ones than any backbone reads, are typing
mistakes that would take days and all memory."""

_OPTIONS = {"seed": 0, "side": DEFAULT_SIDE}
_MOST_DIGITS = 30
_EXPECTED = "write scenes:N, or scenes:N?seed=S&side=PIXELS"


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

    duplicates: Literal["keep", "once"] = "keep"
    """Files with the same bytes: all are used, or the first alone, and the others are skipped."""

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


class ImageSet(ABC):
    """References to images in a fixed order, with a hash that changes when an image does.

    Attributes:
        root: what the ids are relative to.
        refs: the images.
    """

    root: Path
    refs: tuple[ImageRef, ...]

    def __len__(self) -> int:
        return len(self.refs)

    def __iter__(self) -> Iterator[ImageRef]:
        return iter(self.refs)

    def __getitem__(self, index: int) -> ImageRef:
        return self.refs[index]

    @cached_property
    def listing_digest(self) -> str:
        """Hash of every id and of what is known of its image without opening it."""
        digest = hashlib.sha256()
        for version in self._versions():
            digest.update(version)
        return digest.hexdigest()

    @abstractmethod
    def _versions(self) -> Iterator[bytes]: ...


@final
class ImageFolder(ImageSet):
    """The images of a folder or list file, in natural order; nothing is opened yet.

    Args:
        path: a folder (flat, class folders, nested), or a text file of one path a line (blank
            lines and ``#`` lines are passed over; relative paths start from the list's folder).
        limit: at most so many images, evenly spread over the natural order.

    Raises:
        ImageSetError: the path is missing or holds no image candidates.
    """

    def __init__(self, path: Path | str, *, limit: int | None = None) -> None:
        self.root, found = list_images(Path(path))
        base = _label_base(self.root, found)
        chosen = (found[i] for i in _spread(len(found), limit))
        self.refs = tuple(ImageRef(name, file, _label(name, base)) for name, file in chosen)

    def _versions(self) -> Iterator[bytes]:
        for ref in self.refs:
            try:
                state = ref.path.stat()
                version = f"{state.st_size} {state.st_mtime_ns}"
            except OSError:
                version = "missing"
            yield f"{ref.id}\0{version}\n".encode()


@final
class SceneSet(ImageSet):
    """Scenes 0 to n − 1 of the set ``seed``, rendered whenever they are read; nothing is stored.

    Args:
        n: how many.
        seed: of the set; the reference backbones were trained on seed 0, and 1 is held out.
        side: pixels a side.
        limit: at most so many of them, evenly spread.

    Raises:
        ImageSetError: fewer than one scene, a side below one pixel, or a negative seed.
    """

    def __init__(
        self, n: int, *, seed: int = 0, side: int = DEFAULT_SIDE, limit: int | None = None
    ) -> None:
        for name, value, least, most in (
            ("n", n, 1, MOST_SCENES), ("seed", seed, 0, MOST_SEED), ("side", side, 1, MOST_SIDE)
        ):  # fmt: skip
            if value < least:
                raise ImageSetError(f"{SCHEME} {name} = {value}, but it must be {least} or more")
            if value > most:
                raise ImageSetError(f"{SCHEME} {name} = {value}, but it must be {most} or less")
        self.root = Path(f"{SCHEME}{n}?seed={seed}&side={side}")
        self.refs = tuple(_scene_ref(seed, side, i) for i in _spread(n, limit))

    @classmethod
    def parse(cls, path: Path, *, limit: int | None = None) -> Self:
        """Read ``scenes:N?seed=S&side=PIXELS``.

        Raises:
            ImageSetError: it does not read like that.
        """
        found = re.fullmatch(rf"{SCHEME}(\d+)(?:\?(.*))?", str(path))
        if found is None:
            raise ImageSetError(f"'{path}' is no set of scenes; {_EXPECTED}")
        options = dict(_OPTIONS)
        for key, value in parse_qsl(found[2] or "", keep_blank_values=True):
            if key not in options or not value.isdecimal():
                raise ImageSetError(f"'{path}': '{key}={value}' is not understood; {_EXPECTED}")
            options[key] = int(value[:_MOST_DIGITS])  # more digits are too large in any case
        return cls(int(found[1][:_MOST_DIGITS]), **options, limit=limit)

    def _versions(self) -> Iterator[bytes]:
        yield f"renderer {RENDERER} {self.root}\n".encode()
        for ref in self.refs:
            yield f"{ref.id}\n".encode()


def is_scene_set(path: Path) -> bool:
    """Whether ``path`` names scenes rather than files."""
    return str(path).startswith(SCHEME)


def open_image_set(path: Path, *, limit: int | None = None) -> ImageSet:
    """List a folder, a text file of paths, or ``scenes:N?seed=S&side=PIXELS``.

    Raises:
        ImageSetError: nothing is there, it holds no image candidates, or the scenes' name is wrong.
    """
    if is_scene_set(path):
        return SceneSet.parse(path, limit=limit)
    return ImageFolder(path, limit=limit)


def open_image(ref: ImageRef, *, max_pixels: int = PIL_PIXEL_LIMIT) -> Image.Image:
    """Decode or render an image to upright RGB.

    Raises:
        UnreadableImageError: its file is truncated, empty, not an image, too large, …
    """
    scene = scene_address(ref.path)
    return decode_image(ref.path, max_pixels=max_pixels) if scene is None else scene.render()


def pick_images(refs: Sequence[ImageRef], n: int, seed: int) -> tuple[ImageRef, ...]:
    """Choose ``n`` images at random, one per class in turn when there are classes.

    Every image has a random rank within its class, and every class a random place; both depend
    on ``(seed, id)`` alone. Classes give their first-ranked image each, then their second, …

    Returns:
        ``n`` references, or all when there are fewer, in natural order.
    """
    classes: defaultdict[str | None, list[ImageRef]] = defaultdict(list)
    for ref in refs:
        classes[ref.label].append(ref)
    turns: list[tuple[int, int, ImageRef]] = []
    for label, members in classes.items():
        place = draw_key(seed, "class", label or "")
        members.sort(key=lambda ref: draw_key(seed, "image", ref.id))
        turns += [(rank, place, ref) for rank, ref in enumerate(members)]
    turns.sort(key=lambda turn: turn[:2])
    return tuple(sorted((ref for _, _, ref in turns[:n]), key=lambda ref: natural_key(ref.id)))


def _spread(n: int, limit: int | None) -> Iterator[int]:
    """Yield ``limit`` of ``n`` positions, evenly spread; all where there is no limit."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    kept = min(n, limit or n)
    return (i * n // kept for i in range(kept))


def _scene_ref(seed: int, side: int, index: int) -> ImageRef:
    place = scene_place(seed, index)
    return ImageRef(f"{place}/{seed}-{index:07d}", SceneAddress(seed, side, index).path, place)


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
