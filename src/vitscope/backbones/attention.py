"""Attention of one block on demand: the rows asked for, or sums over them, never every map at once.

One fp32 map of 24x24 patches, 16 heads and 8 images takes 170 MB; its queries and keys take 38.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

QUERY_CHUNK = 64
"""Rows held at a time while a sum over them is streamed."""


class BlockAttention(ABC):
    """Softmax probabilities of the designated block, fp32, by query row.

    Tokens are counted as the block sees them: prefix tokens (CLS, registers) first, then patch
    tokens, row-major.
    """

    @property
    @abstractmethod
    def n_prefix(self) -> int:
        """Prefix tokens before the patch tokens."""

    @property
    @abstractmethod
    def n_tokens(self) -> int:
        """Prefix and patch tokens, T."""

    @abstractmethod
    def rows(self, queries: Int64[Tensor, "Q"]) -> Float32[Tensor, "B A Q T"]:
        """Return the probabilities of ``queries`` over all keys; each row sums to 1."""

    def patch_rows(self) -> Float32[Tensor, "B A P T"]:
        """Return the rows of every patch token."""
        return self.rows(torch.arange(self.n_prefix, self.n_tokens))

    def received(self) -> Float32[Tensor, "B A T"]:
        """Return the attention every token receives, summed over patch queries, streamed."""
        first, *rest = torch.arange(self.n_prefix, self.n_tokens).split(QUERY_CHUNK)
        total = self.rows(first).sum(2)
        for queries in rest:
            total += self.rows(queries).sum(2)
        return total


@dataclass(frozen=True)
class QueryKeyAttention(BlockAttention):
    """Attention held as the queries and keys that make it.

    Attributes:
        query: after any query norm, already multiplied by the attention's scale.
        key: after any key norm.
        n_leading: prefix tokens before the patch tokens.
    """

    query: Float32[Tensor, "B A T h"]
    key: Float32[Tensor, "B A T h"]
    n_leading: int

    @property
    def n_prefix(self) -> int:
        """Prefix tokens before the patch tokens."""
        return self.n_leading

    @property
    def n_tokens(self) -> int:
        """Prefix and patch tokens, T."""
        return self.key.shape[2]

    @torch.inference_mode()
    def rows(self, queries: Int64[Tensor, "Q"]) -> Float32[Tensor, "B A Q T"]:
        """Return softmax(q·kᵀ) of the asked rows."""
        asked = self.query[:, :, queries.to(self.query.device)].float()
        return (asked @ self.key.float().transpose(-1, -2)).softmax(-1)
