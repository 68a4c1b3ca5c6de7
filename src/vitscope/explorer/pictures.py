"""Where a picture comes from: an image of the run by its position, or one that was dropped in."""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vitscope.embedded.scene import scene_address
from vitscope.errors import VitscopeError
from vitscope.images.decode import UnreadableImageError, decode_bytes
from vitscope.images.listing import list_images
from vitscope.images.sources import ImageRef, ImageSettings, is_scene_set

MAX_UPLOAD_BYTES = 32 * 2**20
"""Larger files are refused before they are read whole."""

MAX_UPLOAD_PIXELS = 50_000_000
"""Refused before decoding, as a decompression bomb; 150 MB as RGB."""

UPLOADS_KEPT = 16
"""Dropped-in pictures held in memory; the one used longest ago goes first."""

LONGEST_SIDE = 2048
"""A dropped-in picture is kept at this size: no backbone of the zoo sees more."""

LONGEST_NAME = 200

_KEY_LENGTH = 16


class NoSuchPictureError(VitscopeError):
    """There is no picture under this address, or no longer."""


@dataclass(frozen=True)
class Upload:
    """A dropped-in picture: upright RGB, and what its owner calls it."""

    name: str
    picture: Image.Image


class Uploads:
    """The pictures that were dropped in, in memory alone, named by a hash of their bytes."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, Upload] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, data: bytes, name: str) -> str:
        """Decode a file and return its key.

        Raises:
            UnreadableImageError: it is no image, or too large.
        """
        if not data:
            raise UnreadableImageError("empty file (0 bytes)")
        if len(data) > MAX_UPLOAD_BYTES:
            raise UnreadableImageError(f"more than {MAX_UPLOAD_BYTES // 2**20} MiB")
        key = hashlib.sha256(data).hexdigest()[:_KEY_LENGTH]
        picture = decode_bytes(data, max_pixels=MAX_UPLOAD_PIXELS)
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        with self._lock:
            self._held[key] = Upload(name[:LONGEST_NAME], picture)
            self._held.move_to_end(key)
            while len(self._held) > UPLOADS_KEPT:
                self._held.popitem(last=False)
        return key

    def get(self, key: str) -> Upload:
        """Return a picture.

        Raises:
            NoSuchPictureError: it was never there, or has made room for others.
        """
        with self._lock:
            if key not in self._held:
                raise NoSuchPictureError(
                    f"the dropped-in picture is no longer here (the last {UPLOADS_KEPT} are kept "
                    "while the explorer runs); drop it in again"
                )
            self._held.move_to_end(key)
            return self._held[key]


@dataclass(frozen=True)
class PictureKey:
    """The address of a picture: a position in the run's images, or a dropped-in picture's hash."""

    position: int | None
    upload: str | None = None

    @property
    def path(self) -> str:
        """How it stands in an address."""
        return f"image/{self.position}" if self.upload is None else f"upload/{self.upload}"


def readable_images(settings: ImageSettings) -> Callable[[ImageRef], bool]:
    """Return whether an image lies under the roots that a study names.

    A table may have been written by anyone: what it says of paths is not believed. Links inside a
    root are followed, as they are when a study runs.
    """
    sources = [path for path in (settings.train, settings.eval) if path is not None]
    folders = [_lexical(path) for path in sources if path.is_dir()]
    lists = [path for path in sources if path.is_file()]
    listed = {_lexical(file) for path in lists for _, file in list_images(path)[1]}
    has_scenes = any(is_scene_set(path) for path in sources)

    def is_readable(ref: ImageRef) -> bool:
        if scene_address(ref.path) is not None:
            return has_scenes
        path = _lexical(ref.path)
        return path in listed or any(path.is_relative_to(root) for root in folders)

    return is_readable


def _lexical(path: Path) -> Path:
    # not resolve(): a link inside a root may lead out of it, as data sets' links do
    return Path(os.path.normpath(path.absolute()))
