"""Checksums of files and fingerprints of settings."""

import hashlib
import json
from pathlib import Path
from typing import Any


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
