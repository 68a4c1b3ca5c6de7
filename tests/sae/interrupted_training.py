"""Run by test_sae_resume.py in a process of its own, to be killed: argv checkpoint, log, pause."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vitscope.sae.settings import SaeSettings
from vitscope.sae.source import TensorSource
from vitscope.sae.training import TrainedSae, train_sae
from vitscope.tokens.sampling import HeldOut

SETTINGS = SaeSettings(
    expansion=4, k=4, batch_size=128, steps=40, learning_rate=3e-3, checkpoint_every=6,
    log_every=4, dead_after_tokens=256, aux_k=8,
)  # fmt: skip
"""Ten batches an epoch, so that a resumption falls inside an epoch; features die early."""


@dataclass(frozen=True, eq=False)
class WatchedSource:
    """Calls ``before(number of batch in this process)`` before each batch."""

    inner: TensorSource
    before: Callable[[int], None]

    @property
    def n_tokens(self) -> int:
        return self.inner.n_tokens

    @property
    def width(self) -> int:
        return self.inner.width

    def epoch_batches(self, epoch: int, batch_size: int, skip: int = 0) -> Iterator[Tensor]:
        for number, batch in enumerate(self.inner.epoch_batches(epoch, batch_size, skip), skip):
            self.before(number + epoch * (self.n_tokens // batch_size))
            yield batch

    def sample(self, n: int) -> Tensor:
        return self.inner.sample(n)

    def held_out(self, n: int) -> HeldOut:
        return self.inner.held_out(n)

    def images_of(self, epoch: int, batch_size: int, batch: int) -> list[str]:
        return self.inner.images_of(epoch, batch_size, batch)


def training(
    before: Callable[[int], None],
    checkpoint: Path | None,
    log: Path | None,
    seed: int = 0,
    settings: SaeSettings = SETTINGS,
) -> TrainedSae:
    """Train the one SAE of these tests."""
    g = torch.Generator().manual_seed(0)
    tokens = torch.randn(1300, 16, generator=g) @ torch.randn(16, 16, generator=g) + 2
    source = WatchedSource(TensorSource(tokens), before)
    return train_sae(
        source, settings, seed=seed, checkpoint=checkpoint, fingerprint="tokens", log=log
    )


if __name__ == "__main__":
    pause = float(sys.argv[3])
    training(lambda _: time.sleep(pause), Path(sys.argv[1]), Path(sys.argv[2]))
