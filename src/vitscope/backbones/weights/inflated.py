"""Small files that would become gigabytes in memory: refused before they do."""

import zipfile
from pathlib import Path
from typing import IO

from torch import Tensor

MOST_INFLATION = 100
"""Bytes of an archive's content per byte of its file; weights do not compress to that."""


class InflatedError(ValueError):
    """An archive that would unfold to far more than it is."""


def require_modest(file: Path | IO[bytes], n_bytes: int) -> None:
    """Refuse an archive whose compressed entries would unfold to far more than its ``n_bytes``.

    What is no zip archive passes: its reader says so.

    Raises:
        InflatedError: with the size that it would take.
    """
    is_zip = zipfile.is_zipfile(file)
    unfolded = 0
    if is_zip:
        with zipfile.ZipFile(file) as archive:
            unfolded = sum(entry.file_size for entry in archive.infolist())
    if not isinstance(file, Path):
        file.seek(0)  # both looks have moved it
    if unfolded > MOST_INFLATION * n_bytes:
        raise InflatedError(
            f"its {n_bytes} bytes would unfold to {unfolded / 1e9:.1f} GB, as no weights do"
        )


def is_expanded(tensor: Tensor) -> bool:
    """Whether a tensor repeats its values: a copy of it would take more than its file holds."""
    return tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
