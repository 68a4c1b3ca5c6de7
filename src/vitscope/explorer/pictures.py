"""Where a picture comes from: an image of the run by its position, or one that was dropped in."""

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass

from PIL import Image

from vitscope.errors import VitscopeError
from vitscope.explorer.records import RunRecord
from vitscope.images.decode import UnreadableImageError, decode_bytes
from vitscope.images.sources import open_image

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


def open_picture(key: PictureKey, run: RunRecord, uploads: Uploads) -> Image.Image:
    """Return the picture, upright RGB.

    Raises:
        NoSuchPictureError: there is none.
        UnreadableImageError: its file cannot be read any more, or lies outside the image roots.
    """
    if key.upload is not None:
        return uploads.get(key.upload).picture
    assert key.position is not None
    if not 0 <= key.position < len(run.images):
        raise NoSuchPictureError(f"the run has images 0 to {len(run.images) - 1}")
    ref = run.images[key.position]
    if not run.is_readable(ref):
        raise UnreadableImageError(
            f"{ref.id} lies outside the image folders that the study names; it is not opened"
        )
    return open_image(ref, max_pixels=run.max_pixels)


def picture_name(key: PictureKey, run: RunRecord, uploads: Uploads) -> str:
    """Return what a picture is called: a stranger's text.

    Raises:
        NoSuchPictureError: there is none.
    """
    if key.upload is not None:
        return uploads.get(key.upload).name
    assert key.position is not None
    if not 0 <= key.position < len(run.images):
        raise NoSuchPictureError(f"the run has images 0 to {len(run.images) - 1}")
    return run.images[key.position].id
