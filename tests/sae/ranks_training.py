"""Run by test_sae_ranks.py: argv folder and jobs, a job being "number of ranks:spoiled rank".

A job has a folder of its own name, with the log (of rank 0) and every rank's SAE; or every rank's
error, where a batch was spoiled. Ranks are forked from this process, which imports torch once.
"""

import multiprocessing
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from tests.sae.planted_codes import mixtures, unit_atoms
from torch import Tensor

from vitscope.distributed import JobRanks, current_ranks, share
from vitscope.errors import SaeError
from vitscope.sae.settings import SaeSettings
from vitscope.sae.source import TensorSource
from vitscope.sae.training import train_sae
from vitscope.tokens.sampling import HeldOut

BATCH = 100
"""Not divisible by three: ranks hold different numbers of rows."""

SETTINGS = SaeSettings(
    expansion=4, k=3, batch_size=BATCH, steps=200, learning_rate=1e-3, log_every=1,
    dead_after_tokens=300, aux_k=2, checkpoint_every=60,
)  # fmt: skip
"""Features die early; two chosen of them, so that both forms of the auxiliary loss come up."""


@dataclass(frozen=True, eq=False)
class Source:
    """Rows that repeat, so that equal activations lie on different ranks; one row spoiled."""

    inner: TensorSource
    spoiled_row: int | None

    @property
    def n_tokens(self) -> int:
        return self.inner.n_tokens

    @property
    def width(self) -> int:
        return self.inner.width

    def epoch_batches(self, epoch: int, batch_size: int, skip: int = 0) -> Iterator[Tensor]:
        for number, rows in enumerate(self.inner.epoch_batches(epoch, batch_size, skip), skip):
            rows[BATCH - 10 :] = rows[:10]
            if self.spoiled_row is not None and number == 3:
                rows[self.spoiled_row] = float("nan")
            yield rows

    def sample(self, n: int) -> Tensor:
        return self.inner.sample(n)

    def held_out(self, n: int) -> HeldOut:
        return self.inner.held_out(n)

    def images_of(self, epoch: int, batch_size: int, batch: int) -> list[str]:
        return self.inner.images_of(epoch, batch_size, batch)


def train(folder: Path, rank: int, size: int, spoiled_rank: int) -> None:
    if size > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=size
        )
    ranks = current_ranks()
    assert (ranks.rank, ranks.size) == (rank, size)
    spoiled = None if spoiled_rank < 0 else share(BATCH, JobRanks(spoiled_rank, size)).start
    tokens = mixtures(unit_atoms(48, 16, seed=0), 3000, 3, noise=0.05, seed=1)
    try:
        trained = train_sae(
            Source(TensorSource(tokens), spoiled), SETTINGS, seed=0,
            log=folder / "log.jsonl", checkpoint=folder / "checkpoint.safetensors",
        )  # fmt: skip
    except SaeError as error:
        (folder / f"error-{rank}").write_text(str(error))
        return
    sae = trained.sae
    tensors = {name: getattr(sae, name) for name in ("w_enc", "b_enc", "w_dec", "b_dec")}
    tensors["threshold"] = torch.tensor(sae.threshold)
    save_file(tensors, folder / f"sae-{rank}.safetensors")


def main(folder: Path, jobs: list[str]) -> None:
    torch.set_num_threads(1)
    fork = multiprocessing.get_context("fork")
    for job in jobs:
        (folder / job).mkdir()
        size, spoiled = (int(part) for part in job.split(":"))
        ranks = [
            fork.Process(target=train, args=(folder / job, rank, size, spoiled))
            for rank in range(size)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(180)
            process.kill()
            assert process.exitcode == 0, f"a rank of {job} did not finish"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
