"""Every file decoded once before any work: what is usable, what is skipped, and why."""

import csv
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from vitscope.embedded.scene import scene_address
from vitscope.errors import ImageSetError
from vitscope.images.decode import UnreadableImageError, check_bytes, read_file
from vitscope.images.formats import NOT_READ, unread_by_suffix
from vitscope.images.loading import tracked_map
from vitscope.images.sources import ImageRef
from vitscope.store.atomic import bytes_checksum, write_text
from vitscope.store.tables import read_metadata, read_table, write_table

_NAMED_IN_ERROR = 10

_Checked = tuple[tuple[int, int], str]
"""Size and checksum of a usable image."""


@dataclass(frozen=True, slots=True)
class SkippedImage:
    """An image that cannot be used, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class VerifiedImages:
    """The outcome of :func:`verify_images`.

    Attributes:
        usable: images that decode, in the order given.
        sizes: width and height in pixels of each usable image, upright.
        checksums: SHA-256 of each usable file.
        skipped: the others, with the reason.
        decode_rate: files checked per second of wall time; None when read back from a table.
    """

    usable: tuple[ImageRef, ...]
    sizes: tuple[tuple[int, int], ...]
    checksums: tuple[str, ...]
    skipped: tuple[SkippedImage, ...]
    decode_rate: float | None

    @property
    def digest(self) -> str:
        """Hash of the usable images' ids and bytes, wherever the files lie."""
        pairs = zip(self.usable, self.checksums, strict=True)
        return bytes_checksum(*(f"{ref.id}\0{checksum}\n".encode() for ref, checksum in pairs))

    def to_json(self) -> str:
        """Return what was found, for another process that knows the images."""
        skipped = {image.id: image.reason for image in self.skipped}
        return json.dumps([skipped, self.sizes, self.checksums, self.decode_rate])

    @classmethod
    def from_json(cls, text: bytes, refs: Sequence[ImageRef]) -> "VerifiedImages":
        """Read back what :meth:`to_json` wrote of ``refs``."""
        skipped, sizes, checksums, rate = json.loads(text)
        return cls(
            usable=tuple(ref for ref in refs if ref.id not in skipped),
            sizes=tuple((width, height) for width, height in sizes),
            checksums=tuple(checksums),
            skipped=tuple(SkippedImage(*item) for item in skipped.items()),
            decode_rate=rate,
        )


def joined(parts: Sequence[VerifiedImages]) -> VerifiedImages:
    """Return what several processes found in adjacent parts of a set, checked at the same time."""
    return VerifiedImages(
        usable=tuple(ref for part in parts for ref in part.usable),
        sizes=tuple(size for part in parts for size in part.sizes),
        checksums=tuple(checksum for part in parts for checksum in part.checksums),
        skipped=tuple(image for part in parts for image in part.skipped),
        decode_rate=sum(part.decode_rate or 0.0 for part in parts),
    )


def verify_images(refs: Sequence[ImageRef], *, workers: int, max_pixels: int) -> VerifiedImages:
    """Decode every file once, in parallel, with progress; a bad file never raises.

    Args:
        refs: the images, as :class:`~vitscope.images.sources.ImageFolder` lists them.
        workers: threads; 0 takes one per core.
        max_pixels: an image with more is skipped.
    """
    started = time.perf_counter()
    check = partial(_check, max_pixels=max_pixels)
    outcomes = list(tracked_map(check, refs, "checking images", "images", workers))
    elapsed = time.perf_counter() - started
    good = [(ref, o) for ref, o in zip(refs, outcomes, strict=True) if isinstance(o, tuple)]
    return VerifiedImages(
        usable=tuple(ref for ref, _ in good),
        sizes=tuple(size for _, (size, _) in good),
        checksums=tuple(checksum for _, (_, checksum) in good),
        skipped=tuple(o for o in outcomes if isinstance(o, SkippedImage)),
        decode_rate=len(refs) / elapsed,
    )


def _check(ref: ImageRef, *, max_pixels: int) -> _Checked | SkippedImage:
    scene = scene_address(ref.path)
    if scene is not None:  # rendered, not read: nothing that could be damaged
        return (scene.side, scene.side), bytes_checksum(scene.version)
    try:
        str(ref.path).encode()
    except UnicodeEncodeError:  # it could not be written to a table and found again
        return SkippedImage(ref.id, "its name is not valid UTF-8; rename it")
    unread = unread_by_suffix(ref.path)
    if unread is not None:
        return SkippedImage(ref.id, unread)
    try:
        data = read_file(ref.path)
        size = check_bytes(data, max_pixels=max_pixels)
    except UnreadableImageError as error:
        return SkippedImage(ref.id, error.reason)
    return size, bytes_checksum(data)


def check_skips(verified: VerifiedImages, max_skipped: float) -> None:
    """Pass when enough images are usable.

    Pictures of a format that is not read, as camera raw beside its JPEG, count for neither side.

    Raises:
        ImageSetError: more than the share ``max_skipped`` was skipped, or nothing is left; the
            message names the first ten with their reasons.
    """
    skipped = [image for image in verified.skipped if image.reason not in NOT_READ]
    total = len(verified.usable) + len(skipped)
    if verified.usable and len(skipped) <= max_skipped * total:
        return
    if not verified.usable:
        skipped, total = list(verified.skipped), len(verified.skipped)
    named = "; ".join(f"{image.id} ({image.reason})" for image in skipped[:_NAMED_IN_ERROR])
    more = len(skipped) - _NAMED_IN_ERROR
    raise ImageSetError(
        f"{len(skipped)} of {total} images cannot be used, and max_skipped allows "
        f"{max_skipped:.1%}: {named}{f'; and {more} more' if more > 0 else ''}. "
        "Remove or repair them, or raise max_skipped"
    )


def write_skipped(path: Path, skipped: Sequence[SkippedImage]) -> None:
    """Write ``skipped.csv`` (id, reason) atomically; with nothing skipped, its header alone."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("id", "reason"))
    rows.writerows((image.id, image.reason) for image in skipped)
    write_text(path, text.getvalue())


def write_image_table(path: Path, verified: VerifiedImages) -> None:
    """Write the usable images as Parquet: id, path, label, width, height, sha256.

    The label of an image without a class is the empty string. The skipped images lie in the
    metadata; the rate does not, so that equal images give equal bytes.
    """
    sizes = np.array(verified.sizes, dtype=np.int64).reshape(-1, 2)
    columns = {
        "id": [ref.id for ref in verified.usable],
        "path": [str(ref.path) for ref in verified.usable],
        "label": [ref.label or "" for ref in verified.usable],
        "width": sizes[:, 0],
        "height": sizes[:, 1],
        "sha256": list(verified.checksums),
    }
    skipped = [[image.id, image.reason] for image in verified.skipped]
    write_table(path, columns, {"skipped": skipped, "digest": verified.digest})


def read_image_table(path: Path) -> VerifiedImages:
    """Read what :func:`write_image_table` wrote.

    Raises:
        ArtifactError: the table is missing or damaged.
    """
    table = read_table(path)
    rows = zip(table["id"], table["path"], table["label"], strict=True)
    sizes = zip(table["width"].tolist(), table["height"].tolist(), strict=True)
    return VerifiedImages(
        usable=tuple(ImageRef(str(i), Path(str(p)), str(label) or None) for i, p, label in rows),
        sizes=tuple(sizes),
        checksums=tuple(map(str, table["sha256"])),
        skipped=tuple(SkippedImage(i, reason) for i, reason in read_metadata(path)["skipped"]),
        decode_rate=None,
    )
