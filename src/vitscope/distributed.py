"""Ranks of one job: what vitscope needs of torch.distributed, and nothing else of it.

A job of one process and a job of many run the same code: :data:`ALONE` answers for the first.
"""

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from vitscope.errors import VitscopeError
from vitscope.progress import silence

PATIENCE = timedelta(days=7)
"""How long a rank waits for the others: a stage that rank 0 does by itself may take days. A rank
that dies does not make them wait so long: its connections close, and torchrun stops the rest."""

RENDEZVOUS_PATIENCE = timedelta(minutes=10)
"""How long the processes of a job may take to find each other."""

RENDEZVOUS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each process through its environment."""


class DistributedError(VitscopeError):
    """The job's processes cannot work together as asked."""


class ShareDone(Exception):
    """Raised on the other ranks when their share of a stage is done: the rest is rank 0's."""


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

    def all_gather(self, rows: Tensor) -> Tensor:
        """Return the rows of every rank, in the order of ranks; each may bring another number."""
        ...

    def barrier(self) -> None:
        """Return when every rank has come here."""
        ...

    def broadcast(self, word: str) -> str:
        """Return the word of rank 0; what the others bring is ignored."""
        ...

    def gather_bytes(self, content: bytes) -> list[bytes]:
        """Return every rank's content, in the order of ranks, on rank 0; nothing on the others."""
        ...


@dataclass(frozen=True)
class Alone:
    """One process."""

    rank: int = 0
    size: int = 1

    def sum(self, tensor: Tensor) -> Tensor:
        """Return ``tensor``."""
        return tensor

    def all_gather(self, rows: Tensor) -> Tensor:
        """Return ``rows``."""
        return rows

    def barrier(self) -> None:
        """Return at once."""

    def broadcast(self, word: str) -> str:
        """Return ``word``."""
        return word

    def gather_bytes(self, content: bytes) -> list[bytes]:
        """Return ``content`` alone."""
        return [content]


ALONE = Alone()


@dataclass(frozen=True)
class JobRanks:
    """The default process group of torch.distributed.

    Every method raises :class:`DistributedError` when another process of the job is gone.
    """

    rank: int
    size: int

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the element-wise sum over all ranks."""
        with _others_needed():
            dist.all_reduce(tensor)
        return tensor

    def all_gather(self, rows: Tensor) -> Tensor:
        """Return the rows of every rank, in the order of ranks."""
        lengths = [
            int(n) for n in self._all(torch.tensor([rows.shape[0]], device=rows.device)).tolist()
        ]
        padded = rows.new_zeros(max(lengths), *rows.shape[1:])
        padded[: rows.shape[0]] = rows
        parts = self._all(padded).split(padded.shape[0]) if padded.shape[0] else [padded]
        return torch.cat([part[:n] for part, n in zip(parts, lengths, strict=False)])

    def barrier(self) -> None:
        """Return when every rank has come here."""
        self.sum(torch.zeros(1))

    def broadcast(self, word: str) -> str:
        """Return the word of rank 0."""
        content = _as_tensor(word.encode() or b" ")
        length = torch.tensor([len(content)])
        with _others_needed():
            dist.broadcast(length, src=0)
            if self.rank != 0:
                content = torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(content, src=0)
        return content.numpy().tobytes().decode()

    def gather_bytes(self, content: bytes) -> list[bytes]:
        """Return every rank's content, in the order of ranks, on rank 0; nothing on the others."""
        lengths: list[int] = self._all(torch.tensor([len(content)])).tolist()
        padded = _as_tensor(content.ljust(max(1, *lengths), b" "))
        parts = [torch.empty_like(padded) for _ in lengths] if self.rank == 0 else None
        with _others_needed():
            dist.gather(padded, parts)
        return [p[:n].numpy().tobytes() for p, n in zip(parts or (), lengths, strict=False)]

    def _all(self, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        with _others_needed():
            dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)


def _as_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


@contextmanager
def _others_needed() -> Generator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo's and NCCL's alike
        raise DistributedError(
            "another process of the job has ended; its own message says why, and the same command "
            f"continues from what is finished ({str(error).splitlines()[0]})"
        ) from error


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
    return part_of(n, ranks.rank, ranks.size)


def leave_unless_rank_0() -> None:
    """Return on rank 0, or where there is no other; elsewhere, end the share of a stage.

    Raises:
        ShareDone: on the other ranks.
    """
    if current_ranks().rank != 0:
        raise ShareDone


def part_of(n: int, rank: int, size: int) -> slice:
    """Return a rank's part of ``n`` pieces: contiguous, in the order of ranks, maybe empty."""
    return slice(n * rank // size, n * (rank + 1) // size)


def is_launched(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of several that torchrun, or what works like it, has started."""
    return all(name in environment for name in RENDEZVOUS) and environment["WORLD_SIZE"] != "1"


@contextmanager
def job() -> Generator[Ranks]:
    """Join the processes that torchrun has started; a process started alone is a job by itself.

    Tensors on the CPU travel by gloo, those on CUDA by NCCL. Each process takes the GPU of its
    local rank. Only rank 0 shows progress.

    Raises:
        DistributedError: the processes do not find each other.
    """
    if not is_launched():
        yield ALONE
        return
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    try:
        store, rank, size = next(rendezvous("env://", timeout=RENDEZVOUS_PATIENCE))
        # after a restart torchrun's store still holds the addresses of the processes that died
        life = dist.PrefixStore(  # pyright: ignore[reportPrivateImportUsage]
            os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store
        )
        dist.init_process_group(backend, store=life, rank=rank, world_size=size, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise DistributedError(
            f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']} does not find the others at "
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} "
            f"({str(error).splitlines()[0]}); start all of them with the same torchrun options"
        ) from error
    if dist.get_rank() != 0:
        silence()
    try:
        yield current_ranks()
    except SystemExit as end:
        if not end.code:
            dist.destroy_process_group()
        raise  # after a failure nobody waits for ranks that may hang
    else:
        dist.destroy_process_group()
