"""A batch of codes as its non-zero entries alone: the one record of a sparse code.

A batch has B·K entries of B·m. Decoding is a sum of a few weighted rows per token, which
``embedding_bag`` computes without a dense ``[B, m]`` code.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from vitscope.axes import Bool, Codes, Float, Int64, Rows
from vitscope.distributed import Ranks


@dataclass(frozen=True, eq=False)
class SparseCode:
    """The non-zero entries of a code matrix ``[n_rows, n_features]``, n of them, by row.

    Attributes:
        rows: token of each entry, ascending.
        features: feature of each entry.
        values: activation of each entry.
        n_rows: N (or B, of a batch).
        n_features: m.
    """

    rows: Int64[Tensor, "n"]
    features: Int64[Tensor, "n"]
    values: Float[Tensor, "n"]
    n_rows: int
    n_features: int

    @classmethod
    def from_dense(cls, codes: Codes) -> "SparseCode":
        """Return the non-zero entries of ``codes`` ``[N, m]``, by token and then by feature."""
        row, feature = codes.nonzero(as_tuple=True)
        return cls(row, feature, codes[row, feature], *codes.shape)

    @property
    def n(self) -> int:
        """Number of entries."""
        return self.values.numel()

    def dense(self) -> Codes:
        """Return the whole matrix, zeros included."""
        whole = self.values.new_zeros(self.n_rows, self.n_features)
        whole[self.rows, self.features] = self.values
        return whole

    def take(self, which: Bool[Tensor, "n"] | Int64[Tensor, "k"]) -> "SparseCode":
        """Return the entries of a mask, or those at ``which`` in that order."""
        rows, features, values = self.rows[which], self.features[which], self.values[which]
        return SparseCode(rows, features, values, self.n_rows, self.n_features)

    def with_values(self, values: Float[Tensor, "n"]) -> "SparseCode":
        """Return the same entries with other values, which may carry gradients."""
        return replace(self, values=values)

    def decode(self, weights: Float[Tensor, "m d"]) -> Rows:
        """Return ``code @ weights`` ``[N, d]``; gradients reach the values and the weights."""
        tokens = torch.arange(self.n_rows, device=self.rows.device)
        return embedding_bag(
            self.features,
            weights,
            torch.searchsorted(self.rows, tokens),
            mode="sum",
            per_sample_weights=self.values,
        )

    def gathered(self, n_rows: int, first_row: int, ranks: Ranks) -> "SparseCode":
        """Return the code of all ranks' rows.

        Args:
            n_rows: rows of all ranks.
            first_row: number of rows that the lower ranks hold.
            ranks: whose codes are put together.
        """
        return SparseCode(
            rows=ranks.all_gather(self.rows + first_row),
            features=ranks.all_gather(self.features),
            values=ranks.all_gather(self.values),
            n_rows=n_rows,
            n_features=self.n_features,
        )


def sum_of_squares(rows: Rows) -> Float[Tensor, ""]:
    """Return Σ‖row‖² without a tensor of squares."""
    flat = rows.reshape(-1)
    return torch.dot(flat, flat)
