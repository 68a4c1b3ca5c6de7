"""Where training tokens come from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from vitscope.axes import Float32, Rows
from vitscope.draws import generator
from vitscope.tokens.sampling import HeldOut


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

    def images_of(self, epoch: int, batch_size: int, batch: int) -> list[str]:
        """Return the image of every row of a batch, for messages; ``batch`` counts from 0."""
        ...

    def sample(self, n: int) -> Float32[Tensor, "n d"]:
        """Return ``n`` training tokens drawn without regard to the epoch (all, if fewer exist).

        The same ``n`` gives the same tokens. The mean and the scale are estimated on them.
        """
        ...

    def held_out(self, n: int) -> HeldOut:
        """Return up to ``n`` tokens that no epoch yields, in random order, always the same.

        θ is fitted on them, and training is watched on the first of them. A source that holds
        nothing out returns training tokens and says so.
        """
        ...


@dataclass(frozen=True, eq=False)
class TensorSource:
    """Tokens held in memory; every epoch is a new permutation of all of them.

    Attributes:
        tokens: raw activations.
        seed: the order's seed.
        apart: raw activations that are held out, each of an image of its own; None holds out
            nothing.
    """

    tokens: Rows
    seed: int = 0
    apart: Rows | None = None

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
        order = self._order(epoch)
        for batch in range(skip, self.n_tokens // batch_size):
            yield self.tokens[order[batch * batch_size : (batch + 1) * batch_size]].float()

    def images_of(self, epoch: int, batch_size: int, batch: int) -> list[str]:
        """Return the position of every row of a batch."""
        rows = self._order(epoch)[batch * batch_size : (batch + 1) * batch_size]
        return [f"row {row}" for row in rows.tolist()]

    def sample(self, n: int) -> Float32[Tensor, "n d"]:
        """Return ``n`` tokens drawn without replacement."""
        order = generator("sae-sample", self.seed).permutation(self.n_tokens)[:n]
        return self.tokens[torch.from_numpy(order)].float()

    def held_out(self, n: int) -> HeldOut:
        """Return the first ``n`` of the tokens held out, or a sample of training's."""
        found = self.sample(n) if self.apart is None else self.apart[:n].float()
        kind = "none" if self.apart is None else "images"
        return HeldOut(found, torch.arange(found.shape[0]), kind)

    def _order(self, epoch: int) -> Tensor:
        return torch.from_numpy(generator("sae-epoch", self.seed, epoch).permutation(self.n_tokens))
