"""A batch of codes as its non-zero entries alone.

A batch has B·K entries of B·m. Decoding is a sum of a few weighted rows per token, which
``embedding_bag`` computes without a dense ``[B, m]`` code.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from vitscope.axes import Float, Int64, Rows
from vitscope.distributed import Ranks


@dataclass(frozen=True, eq=False)
class SparseCode:
    """The non-zero entries of a code matrix ``[n_rows, n_features]``, n of them, by row.

    Attributes:
        rows: token of each entry, ascending.
        features: feature of each entry.
        values: activation of each entry, positive.
        n_rows: B.
        n_features: m.
    """

    rows: Int64[Tensor, "n"]
    features: Int64[Tensor, "n"]
    values: Float[Tensor, "n"]
    n_rows: int
    n_features: int

    @property
    def n(self) -> int:
        """Number of entries."""
        return self.values.numel()

    def dense(self) -> Float[Tensor, "B m"]:
        """The whole matrix, zeros included."""
        whole = self.values.new_zeros(self.n_rows, self.n_features)
        whole[self.rows, self.features] = self.values
        return whole

    def gathered(self, n_rows: int, first_row: int, ranks: Ranks) -> "SparseCode":
        """Return the code of all ranks' rows.

        Args:
            n_rows: rows of all ranks.
            first_row: number of rows that the lower ranks hold.
            ranks: whose codes are put together.
        """
        return SparseCode(
            rows=ranks.gather(self.rows + first_row),
            features=ranks.gather(self.features),
            values=ranks.gather(self.values),
            n_rows=n_rows,
            n_features=self.n_features,
        )


def decode(code: SparseCode, weights: Float[Tensor, "m d"]) -> Rows:
    """Return ``code @ weights``, ``[B, d]``."""
    tokens = torch.arange(code.n_rows, device=code.rows.device)
    return embedding_bag(
        code.features,
        weights,
        torch.searchsorted(code.rows, tokens),
        mode="sum",
        per_sample_weights=code.values,
    )
