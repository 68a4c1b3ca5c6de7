"""Smaller copies of photographs: a phone's picture is decoded once, and not once a pass.

A pass over a picture of 12 megapixels is mostly decoding it. The copies keep the names, and so the
ids and the classes; what needs no copy, or cannot be read, is a link to the file itself.
"""

import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from vitscope.errors import ArtifactError
from vitscope.images.decode import UnreadableImageError, decode_bytes, opened_image, read_file
from vitscope.images.formats import unread_by_suffix
from vitscope.images.loading import tracked_map
from vitscope.images.sources import ImageRef
from vitscope.store.atomic import atomic_path

COPY_SIDE = 640
"""Pixels of a copy's shorter side."""

COPIED_FROM = 960
"""Pixels of the shorter side above which a photograph is copied: half as much again."""

QUALITY = 95
"""Of the copies, which are JPEG without subsampled colour."""


def make_copies(refs: Sequence[ImageRef], folder: Path, *, workers: int, max_pixels: int) -> int:
    """Make ``folder`` hold every photograph under its id: a smaller copy, or a link to the file.

    A copy has its photograph's time of change; one that has it stands already. What else lies in
    ``folder`` is removed.

    Args:
        refs: photographs, not verified.
        folder: of the copies, nobody else's.
        workers: threads; 0 takes one per core.
        max_pixels: a larger photograph is linked: who verifies it says why it is not used.

    Returns:
        how many are copies.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    _remove_others(folder, {folder / ref.id for ref in refs})

    def is_copied(ref: ImageRef) -> bool:
        return _copy(ref, folder / ref.id, max_pixels)

    try:
        return sum(tracked_map(is_copied, refs, "reading photographs", "photographs", workers))
    except OSError as error:
        raise ArtifactError(f"cannot write {folder}: {error.strerror}") from error


def _copy(ref: ImageRef, target: Path, max_pixels: int) -> bool:
    if _stands(ref.path, target):
        return not target.is_symlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    smaller = None if unread_by_suffix(ref.path) else _smaller(ref.path, max_pixels)
    if smaller is None:
        _link(ref.path.absolute(), target)
        return False
    with atomic_path(target) as temporary:
        temporary.write_bytes(smaller)
    changed = ref.path.stat().st_mtime_ns
    os.utime(target, ns=(changed, changed))
    return True


def _stands(source: Path, target: Path) -> bool:
    if target.is_symlink():
        return target.readlink() == source.absolute()
    try:
        return target.stat().st_mtime_ns == source.stat().st_mtime_ns
    except OSError:
        return False


def _smaller(path: Path, max_pixels: int) -> bytes | None:
    """Return a smaller picture as JPEG, None where the photograph is small, or cannot be read."""
    try:
        encoded = read_file(path)
        with opened_image(encoded, max_pixels) as header:
            if min(header.size) <= COPIED_FROM:
                return None
        image = decode_bytes(encoded, max_pixels=max_pixels)
    except UnreadableImageError:
        return None
    shorter = min(image.size)
    size = (round(image.width * COPY_SIDE / shorter), round(image.height * COPY_SIDE / shorter))
    data = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0).save(
        data, "JPEG", quality=QUALITY, subsampling=0
    )
    return data.getvalue()


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source)
    except OSError:  # Windows asks for a right that few have
        shutil.copy2(source, target)


def _remove_others(folder: Path, wanted: set[Path]) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            if (file := Path(root) / name) not in wanted:
                file.unlink()
