"""Where training tokens come from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from vitscope.axes import Float32, Rows
from vitscope.draws import generator


@runtime_checkable
class TokenSource(Protocol):
    """Raw activations for training, in an order that is a pure function of (seed, epoch)."""

    @property
    def n_tokens(self) -> int:
        """Tokens per epoch."""
        ...

    @property
    def width(self) -> int:
        """d."""
        ...

    def epoch_batches(
        self, epoch: int, batch_size: int, skip: int = 0
    ) -> Iterator[Float32[Tensor, "b d"]]:
        """Yield the ``n_tokens // batch_size`` whole batches of an epoch, in its order.

        The remainder is left out: another epoch draws other tokens.

        Args:
            epoch: from 0.
            batch_size: rows of every batch, at most ``n_tokens``.
            skip: batches at the start that an earlier process has already used.
        """
        ...

    def sample(self, n: int) -> Float32[Tensor, "n d"]:
        """Return ``n`` tokens drawn without regard to the epoch (all, where fewer exist).

        The same ``n`` gives the same tokens. The mean, the scale and θ are estimated on them.
        """
        ...


@dataclass(frozen=True, eq=False)
class TensorSource:
    """Tokens held in memory; every epoch is a new permutation of all of them.

    Attributes:
        tokens: raw activations.
        seed: the order's seed.
    """

    tokens: Rows
    seed: int = 0

    @property
    def n_tokens(self) -> int:
        """Tokens per epoch: all of them."""
        return self.tokens.shape[0]

    @property
    def width(self) -> int:
        """d."""
        return self.tokens.shape[1]

    def epoch_batches(
        self, epoch: int, batch_size: int, skip: int = 0
    ) -> Iterator[Float32[Tensor, "b d"]]:
        """Yield the whole batches of a permutation drawn for ``epoch``."""
        order = torch.from_numpy(
            generator("sae-epoch", self.seed, epoch).permutation(self.n_tokens)
        )
        for batch in range(skip, self.n_tokens // batch_size):
            yield self.tokens[order[batch * batch_size : (batch + 1) * batch_size]].float()

    def sample(self, n: int) -> Float32[Tensor, "n d"]:
        """Return ``n`` tokens drawn without replacement."""
        order = generator("sae-sample", self.seed).permutation(self.n_tokens)[:n]
        return self.tokens[torch.from_numpy(order)].float()
