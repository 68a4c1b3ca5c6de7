"""Files of a run: written whole or not at all, and known by the hash of their content."""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vitscope.errors import ArtifactError

TEMPORARY_SUFFIX = ".vitscope.tmp"
"""Ends the name of a file that is still being written; nothing else in a run ends so."""


@contextmanager
def atomic_path(final: Path) -> Generator[Path]:
    """Yield a temporary path beside ``final``; on success it is flushed and renamed to ``final``.

    Raises:
        ArtifactError: the disk is full or the folder cannot be written.
    """
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{final.name}.", suffix=TEMPORARY_SUFFIX, dir=final.parent
        )
        os.close(handle)
    except OSError as error:
        raise ArtifactError(f"cannot write {final}: {error.strerror}") from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)  # mkstemp's 0600 would hide a run from the rest of the lab
        temporary.replace(final)
    except OSError as error:
        raise ArtifactError(f"cannot write {final}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def discard_temporaries(folder: Path) -> None:
    """Remove what a killed process left half-written in ``folder``, which need not exist."""
    for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` to ``path`` atomically as indented JSON; NaN, which JSON lacks, as null."""
    write_text(path, json.dumps(_nan_to_null(value), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON from ``path``.

    Raises:
        ArtifactError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist") from None
    except (ValueError, OSError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged: {error}; delete it and run again") from error


def _nan_to_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nan_to_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nan_to_null(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def file_checksum(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def bytes_checksum(*chunks: bytes | memoryview) -> str:
    """Return the SHA-256 of ``chunks`` joined, in hexadecimal."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def fingerprint(value: Any) -> str:
    """Return a short hash of any JSON-like value; the order of a mapping's keys does not matter."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:24]
