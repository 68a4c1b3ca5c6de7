"""Which files an image set has: those below a folder, or of a list file, in natural order."""

import difflib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from natsort import natsort_keygen

from vitscope.errors import ImageSetError
from vitscope.images.formats import IMAGE_SUFFIXES, is_candidate
from vitscope.store.atomic import bytes_checksum

NEVER_ENTERED = frozenset(["__MACOSX", "@eaDir"])
"""Folders that machines put beside photographs: copies of names, thumbnails."""

_natural = cast(Callable[[str], tuple[Any, ...]], natsort_keygen())
_natural_folder = lru_cache(maxsize=4096)(_natural)


def natural_key(image_id: str) -> tuple[Any, ...]:
    """Return a sort key of an id: ``img2`` before ``img10``, folder by folder.

    Ids that read alike (``a1``, ``a01``) still order one way.
    """
    *folders, name = image_id.split("/")
    return (*map(_natural_folder, folders), _natural(name)), image_id


def list_images(path: Path) -> tuple[Path, list[tuple[str, Path]]]:
    """Return the root of an image set, and its ``(id, path)`` entries in natural order.

    Args:
        path: a folder (flat, class folders, nested), or a UTF-8 text file of one path a line.

    Raises:
        ImageSetError: nothing is there, it cannot be read, or it holds no image candidates.
    """
    if path.is_dir():
        root, found = path, _candidates_of_folder(path)
    elif path.is_file():
        root, found = path.parent, _candidates_of_list(path)
    else:
        raise ImageSetError(f"{path} does not exist; {_what_is_there(path)}")
    by_id = {_stable_id(file, root): file for file in reversed(found)}  # a first mention wins
    return root, sorted(by_id.items(), key=lambda entry: natural_key(entry[0]))


def _stable_id(file: Path, root: Path) -> str:
    relative = Path(os.path.relpath(file, root)).as_posix()
    # bytes that are not UTF-8 are spelled out, so that every id can be written to a table
    return os.fsencode(relative).decode("utf-8", "backslashreplace")


def _candidates_of_folder(root: Path) -> list[Path]:
    files = _walk(root)
    found = [file for file in files if is_candidate(file)]
    if not found:
        raise ImageSetError(f"{root} holds no images: {_suffix_census(files)}")
    return found


def _walk(root: Path) -> list[Path]:
    """Return all files below ``root``; hidden names are left out, no folder is entered twice."""
    files: list[Path] = []
    entered: set[tuple[int, int]] = set()
    real, linked = [root], list[Path]()
    while real or linked:
        # real folders first: a link to one of them then adds nothing, whatever its name
        folder = real.pop() if real else linked.pop(0)
        try:
            state = folder.stat()
            if (state.st_dev, state.st_ino) in entered:
                continue
            entered.add((state.st_dev, state.st_ino))
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.name.startswith(".") or entry.name in NEVER_ENTERED:
                        continue
                    if entry.is_dir():
                        (linked if entry.is_symlink() else real).append(folder / entry.name)
                    else:
                        files.append(folder / entry.name)
        except OSError as error:
            raise ImageSetError(f"cannot read folder {folder}: {error.strerror}") from error
    return files


def _candidates_of_list(path: Path) -> list[Path]:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise ImageSetError(f"{path} is one image; give its folder, or a text file of image paths")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ImageSetError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ImageSetError(
            f"{path} is neither a folder nor a UTF-8 text file with one image path per line"
        ) from None
    if any("\0" in line for line in lines):
        raise ImageSetError(f"{path} holds NUL characters; a text file of image paths has none")
    stripped = (line.strip() for line in lines)
    files = [path.parent / line for line in stripped if line and not line.startswith("#")]
    if not any(map(is_candidate, files)):
        raise ImageSetError(f"{path} lists no images: {_suffix_census(files)}")
    if not any(file.exists() for file in files):
        raise ImageSetError(
            f"none of the {len(files)} files that {path} lists exists, {files[0]} for one; "
            f"relative paths start from the list's own folder"
        )
    return files


def _suffix_census(files: list[Path]) -> str:
    if not files:
        return "no files at all (hidden ones are not looked at)"
    counts = Counter(file.suffix.lower() or "no suffix" for file in files)
    shown = ", ".join(f"{suffix} ({n})" for suffix, n in counts.most_common(5))
    return f"{len(files)} files, none with an image suffix: {shown}"


def _what_is_there(path: Path) -> str:
    parent = next(folder for folder in path.absolute().parents if folder.is_dir())
    missing = path.absolute().relative_to(parent).parts[0]
    try:
        names = [entry.name for entry in parent.iterdir() if not entry.name.startswith(".")]
    except OSError:
        names = []
    near = difflib.get_close_matches(missing, names, n=1)
    return f"did you mean {parent / near[0]}?" if near else f"{parent} exists, without '{missing}'"


def listing_checksum(paths: Sequence[Path], facts: Sequence[str]) -> str:
    """Hash of what is known of each file: ``facts``, its size and its modification time.

    Raises:
        ImageSetError: a file is gone.
    """
    try:
        states = [path.stat() for path in paths]
    except OSError as error:
        raise ImageSetError(f"{error.filename} cannot be read: {error.strerror}") from None
    lines = zip(facts, states, strict=True)
    return bytes_checksum(*(f"{f} {s.st_size} {s.st_mtime_ns}\n".encode() for f, s in lines))


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file.

    Raises:
        ImageSetError: it is missing, or no UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ImageSetError(f"cannot read {path}: {error}") from None
