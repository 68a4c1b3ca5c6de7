"""A resumable map over chunks, which the ranks of a job share; rank 0 alone touches the disk."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from safetensors.torch import load, save
from torch import Tensor

from vitscope.distributed import Ranks, current_ranks, part_of, rank_0_goes_on
from vitscope.store.parts import missing_parts, resumable_map, save_part

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
    rank_0_goes_on()
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
    missing: list[int] = json.loads(ranks.tell(json.dumps(found)))
    for index in sorted(set(range(len(chunks))) - set(missing)):
        on_reuse(chunks[index])
    # adjacent ones for each rank: its images are decoded ahead, and a gap would begin that anew
    shares = [missing[part_of(len(missing), rank, ranks.size)] for rank in range(ranks.size)]
    for turn in range(max(map(len, shares))):
        indices = [share[turn] if turn < len(share) else None for share in shares]
        mine = indices[ranks.rank]
        part = None if mine is None else compute(chunks[mine])
        content = b"" if part is None else save({k: v.contiguous() for k, v in part.items()})
        for rank, (index, of_rank) in enumerate(zip(indices, ranks.collect(content), strict=False)):
            if index is not None:
                save_part(directory, fingerprint, index, load(of_rank))
                if rank != 0:
                    on_others(chunks[index])
