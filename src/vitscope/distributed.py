"""Ranks of one job: what a training needs of torch.distributed, and nothing else of it.

A job of one process and a job of many run the same code: :data:`ALONE` answers for the first.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from vitscope.errors import VitscopeError


class DistributedError(VitscopeError):
    """The job's processes cannot work together as asked."""


class Ranks(Protocol):
    """The processes of a job. Every method must be called by all of them, in the same order."""

    @property
    def rank(self) -> int:
        """This process, from 0."""
        ...

    @property
    def size(self) -> int:
        """Number of processes."""
        ...

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the element-wise sum over all ranks; ``tensor`` itself may be overwritten."""
        ...

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of every rank, in the order of ranks; each may bring another number."""
        ...


@dataclass(frozen=True)
class Alone:
    """One process."""

    rank: int = 0
    size: int = 1

    def sum(self, tensor: Tensor) -> Tensor:
        """Return ``tensor``."""
        return tensor

    def gather(self, rows: Tensor) -> Tensor:
        """Return ``rows``."""
        return rows


ALONE = Alone()


@dataclass(frozen=True)
class JobRanks:
    """The default process group of torch.distributed."""

    rank: int
    size: int

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the element-wise sum over all ranks."""
        dist.all_reduce(tensor)
        return tensor

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of every rank, in the order of ranks."""
        lengths = [
            int(n) for n in self._all(torch.tensor([rows.shape[0]], device=rows.device)).tolist()
        ]
        padded = rows.new_zeros(max(lengths), *rows.shape[1:])
        padded[: rows.shape[0]] = rows
        parts = self._all(padded).split(padded.shape[0]) if padded.shape[0] else [padded]
        return torch.cat([part[:n] for part, n in zip(parts, lengths, strict=False)])

    def _all(self, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)


def current_ranks() -> Ranks:
    """Return the ranks of the initialised process group, or :data:`ALONE`."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return JobRanks(dist.get_rank(), dist.get_world_size())
    return ALONE


def share(n: int, ranks: Ranks) -> slice:
    """Return the part of ``n`` rows that this rank works on: contiguous, in the order of ranks.

    Raises:
        DistributedError: there are fewer rows than ranks.
    """
    if n < ranks.size:
        raise DistributedError(
            f"{n} rows cannot be shared by {ranks.size} processes; start at most {n}, or raise "
            "the batch size"
        )
    return slice(n * ranks.rank // ranks.size, n * (ranks.rank + 1) // ranks.size)
