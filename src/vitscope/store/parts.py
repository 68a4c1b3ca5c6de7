"""A resumable map: each chunk's result is kept on disk until the whole stage is done."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from vitscope.errors import ArtifactError
from vitscope.store.tensors import load_tensors, save_tensors

Chunk = TypeVar("Chunk")


def resumable_map(
    directory: Path,
    fingerprint: str,
    chunks: Sequence[Chunk],
    compute: Callable[[Chunk], dict[str, Tensor]],
    *,
    on_reuse: Callable[[Chunk], None],
) -> Iterator[dict[str, Tensor]]:
    """Yield ``compute(chunk)`` for every chunk, in order, reusing parts of an earlier process.

    A part is reused only when its ``fingerprint`` and checksum match; ``on_reuse`` is then called
    in place of ``compute``. Every result passes through the disk, so that a resumed run yields the
    same bytes as an uninterrupted one.
    """
    for index, chunk in enumerate(chunks):
        part = _reusable(_path(directory, index), fingerprint)
        if part is None:
            save_part(directory, fingerprint, index, compute(chunk))
            part, _ = load_tensors(_path(directory, index))
        else:
            on_reuse(chunk)
        yield part


def save_part(directory: Path, fingerprint: str, index: int, part: Mapping[str, Tensor]) -> None:
    """Keep the result of chunk ``index``, atomically."""
    save_tensors(_path(directory, index), part, {"fingerprint": fingerprint})


def missing_parts(directory: Path, fingerprint: str, n_chunks: int) -> list[int]:
    """Return the chunks whose part is absent, damaged, or of another fingerprint; ascending."""
    return [i for i in range(n_chunks) if _reusable(_path(directory, i), fingerprint) is None]


def discard_parts(directory: Path) -> None:
    """Remove the parts of a stage that is complete."""
    shutil.rmtree(directory, ignore_errors=True)


def _path(directory: Path, index: int) -> Path:
    return directory / f"part-{index:06d}.safetensors"


def _reusable(path: Path, fingerprint: str) -> dict[str, Tensor] | None:
    try:
        part, metadata = load_tensors(path)
    except ArtifactError:
        return None  # missing or damaged: computed anew
    return part if metadata.get("fingerprint") == fingerprint else None
