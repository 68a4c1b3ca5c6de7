"""What a task asks of its heads: a loss with its gradient, and a score."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vitscope.axes import Float, Int64

CPU_BYTES = 1 << 24
"""On a CPU, maps are worked on in pieces that stay in its caches: twice as fast as all at once."""

LEAST_SHARE = 1e-30
"""Below it a probability nears the end of fp32, where it keeps ever fewer digits."""

FLOATS_PER_LOGIT = 3
"""Arrays of the size of the upsampled logits that a dense task holds at once."""


@dataclass(frozen=True, eq=False)
class LossAndGradient:
    """Of one batch.

    Attributes:
        loss: of every head, [V, h].
        gradient: of the logits, in their shape.
    """

    loss: Float[Tensor, "V h"]
    gradient: Float[Tensor, "V B P h C"]


class Score(Protocol):
    """Accumulates a validation set, batch by batch."""

    def update(self, logits: Float[Tensor, "V B P h C"], target: Tensor) -> None:
        """Take in a batch."""
        ...

    def metrics(self) -> dict[str, Float[Tensor, "V h"]]:
        """Return every metric of every head, in float64 on the CPU."""
        ...


class Objective(Protocol):
    """A task: its losses and scores, from the logits of all heads."""

    @property
    def n_outputs(self) -> int:
        """C."""
        ...

    @property
    def metric(self) -> str:
        """The metric that chooses among trials."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Which way ``metric`` improves."""
        ...

    def loss(self, logits: Float[Tensor, "V B P h C"], target: Tensor) -> LossAndGradient:
        """Return the mean loss of a batch and its gradient."""
        ...

    def score(self, n_variants: int, n_heads: int) -> Score:
        """Return an empty score."""
        ...


def as_maps(logits: Float[Tensor, "V B P h C"], grid: int) -> Float[Tensor, "K p p C"]:
    """Return one map per (variant, head, image), K = V·h·B, the images innermost."""
    ordered = logits.permute(0, 3, 1, 2, 4).reshape(-1, logits.shape[2], logits.shape[4])
    return ordered.unflatten(1, (grid, grid))


def from_maps(maps: Float[Tensor, "K p p C"], like: Tensor) -> Float[Tensor, "V B P h C"]:
    """Undo :func:`as_maps`."""
    n_variants, n_images, n_cells, n_heads, n_outputs = like.shape
    whole = maps.reshape(n_variants, n_heads, n_images, n_cells, n_outputs)
    return whole.permute(0, 2, 3, 1, 4)


def maps_that_fit(n_maps: int, map_bytes: int, memory_bytes: int, like: Tensor) -> Iterator[slice]:
    """Yield slices of ``n_maps`` maps that take so many bytes each (one map at least).

    Args:
        n_maps: K.
        map_bytes: what one map needs while it is worked on.
        memory_bytes: bound on what all maps of a slice need; on a CPU ``CPU_BYTES`` at most.
        like: a tensor where the work is done.
    """
    if like.device.type == "cpu":
        memory_bytes = min(memory_bytes, CPU_BYTES)
    step = max(memory_bytes // map_bytes, 1)
    for start in range(0, n_maps, step):
        yield slice(start, min(start + step, n_maps))


def softmax_and_entropy(
    logits: Float[Tensor, "... C"], label: Int64[Tensor, "... 1"]
) -> tuple[Float[Tensor, "... C"], Float[Tensor, "..."]]:
    """Return softmax over the last axis, and -log of its value at ``label``, by one exponential.

    Where that value is too small for its logarithm to be sure, the logits themselves are asked.
    """
    share = torch.softmax(logits, -1)
    of_label = share.gather(-1, label)[..., 0]
    entropy = -of_label.log()
    tiny = of_label < LEAST_SHARE
    if bool(tiny.any()):
        rows = logits[tiny]
        entropy[tiny] = rows.logsumexp(-1) - rows.gather(-1, label[tiny])[..., 0]
    return share, entropy
