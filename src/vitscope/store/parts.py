"""A resumable map over chunks, shared by the ranks of a job; rank 0 alone touches the disk.

The result of each chunk is kept on disk until the whole stage is done.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

from vitscope.distributed import Ranks, current_ranks, leave_unless_rank_0, part_of
from vitscope.errors import ArtifactError
from vitscope.store.tensors import load_tensors, save_tensors

Chunk = TypeVar("Chunk")


def shared_parts(
    directory: Path,
    fingerprint: str,
    chunks: Sequence[Chunk],
    compute: Callable[[Chunk], dict[str, Tensor]],
    *,
    on_reuse: Callable[[Chunk], None],
    on_others: Callable[[Chunk], None],
) -> Iterator[dict[str, Tensor]]:
    """Yield ``compute(chunk)`` for every chunk, in order, reusing parts of an earlier process.

    In a job of several ranks each computes a run of adjacent chunks and hands them to rank 0, which
    keeps them as one process would: the parts are the same files whatever the number of ranks.

    Args:
        directory: of the parts.
        fingerprint: of the stage; parts of another are computed anew.
        chunks: in order.
        compute: the work on one; its result must not depend on other chunks.
        on_reuse: called in place of ``compute`` for a chunk that an earlier process has done.
        on_others: called on rank 0 for a chunk that another rank has done.

    Raises:
        ShareDone: on the other ranks, in place of the first part.
    """
    ranks = current_ranks()
    if ranks.size == 1:
        yield from resumable_map(directory, fingerprint, chunks, compute, on_reuse=on_reuse)
        return
    _make_missing(ranks, directory, fingerprint, chunks, compute, on_reuse, on_others)
    leave_unless_rank_0()
    yield from resumable_map(directory, fingerprint, chunks, compute, on_reuse=lambda _: None)


def _make_missing(
    ranks: Ranks,
    directory: Path,
    fingerprint: str,
    chunks: Sequence[Chunk],
    compute: Callable[[Chunk], dict[str, Tensor]],
    on_reuse: Callable[[Chunk], None],
    on_others: Callable[[Chunk], None],
) -> None:
    """Make the parts that are missing: in every round one of each rank, until none is left."""
    found = missing_parts(directory, fingerprint, len(chunks)) if ranks.rank == 0 else []
    missing: list[int] = json.loads(ranks.broadcast(json.dumps(found)))
    for index in sorted(set(range(len(chunks))) - set(missing)):
        on_reuse(chunks[index])
    # adjacent ones for each rank: its images are decoded ahead, and a gap would begin that anew
    shares = [missing[part_of(len(missing), rank, ranks.size)] for rank in range(ranks.size)]
    for turn in range(max(map(len, shares))):
        indices = [share[turn] if turn < len(share) else None for share in shares]
        mine = indices[ranks.rank]
        part = None if mine is None else compute(chunks[mine])
        content = b"" if part is None else save({k: v.contiguous() for k, v in part.items()})
        for rank, (index, of_rank) in enumerate(
            zip(indices, ranks.gather_bytes(content), strict=False)
        ):
            if index is not None:
                save_part(directory, fingerprint, index, load(of_rank))
                if rank != 0:
                    on_others(chunks[index])


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


def save_part(
    directory: Path, fingerprint: str, index: int, part: Mapping[str, Tensor | NDArray[Any]]
) -> None:
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
