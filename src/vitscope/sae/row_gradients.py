"""Gradients of one block of dictionary rows at a time, and never of all at once.

Row j of either matrix's gradient is a weighted sum of the batch rows on which feature j was kept:
of the output's gradient for the decoder, of the encoder's input for the encoder. After one sort by
feature that is ``embedding_bag`` again, the features now the bags. Made right before it is used, a
block's gradients stay in the cache, and ``[m, d]`` of them out of memory.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from vitscope.axes import Float, Int64, Rows
from vitscope.sae.sparse_code import SparseCode


@dataclass(frozen=True, eq=False)
class Block:
    """Gradients of a block of dictionary rows.

    Attributes:
        w_enc: of its encoder rows.
        w_dec: of its decoder rows.
        b_enc: of its encoder biases.
        radial: inner product of each decoder row with its gradient. It is Σ value · gradient of
            the value over the feature's entries, so it costs nothing.
    """

    w_enc: Float[Tensor, "R d"]
    w_dec: Float[Tensor, "R d"]
    b_enc: Float[Tensor, "R"]
    radial: Float[Tensor, "R"]


class RowGradients(Protocol):
    """What the optimiser asks for, once per block."""

    def block(self, start: int, stop: int, w_dec: Float[Tensor, "R d"]) -> Block:
        """Return new tensors: the gradients of dictionary rows ``start`` to ``stop``.

        Args:
            start: first row.
            stop: the row after the last.
            w_dec: these rows of the decoder that the loss was computed with.
        """
        ...


@dataclass(frozen=True, eq=False)
class SparseRowGradients:
    """Of a code with few entries, sorted by feature.

    Attributes:
        starts: position of each feature's first entry, and the number of entries.
        features: feature of each entry, ascending.
        rows: batch row of each entry.
        values: activation of each entry.
        output_gradient: gradient of the decoded rows ``[B, d]``.
        x: what the encoder was multiplied with ``[B, d]``.
        of_values: gradient that reaches the values by another way than the decoder, if any.
        output_rows: row of ``output_gradient`` of each entry, where that is not its batch row.
    """

    starts: Int64[Tensor, "m+1"]
    features: Int64[Tensor, "n"]
    rows: Int64[Tensor, "n"]
    values: Float[Tensor, "n"]
    output_gradient: Rows
    x: Rows
    of_values: Float[Tensor, "n"] | None = None
    output_rows: Int64[Tensor, "n"] | None = None

    def block(self, start: int, stop: int, w_dec: Float[Tensor, "R d"]) -> Block:
        """Return the gradients of dictionary rows ``start`` to ``stop``."""
        return self.block_and_values(start, stop, w_dec)[0]

    def block_and_values(
        self, start: int, stop: int, w_dec: Float[Tensor, "R d"]
    ) -> tuple[Block, Float[Tensor, "n_block"]]:
        """Return the same, and the gradients of the block's values.

        The weighted sum that is the decoder's gradient has, with respect to its weights, just the
        derivative that the values' gradients need, so autograd gives them from the same pass, the
        block's decoder rows in the cache.
        """
        starts = self.starts[start : stop + 1]
        first, last = int(starts[0]), int(starts[-1])
        rows, starts = self.rows[first:last], starts - first
        values = self.values[first:last].detach().requires_grad_()
        output_rows = rows if self.output_rows is None else self.output_rows[first:last]
        with torch.enable_grad():
            of_dec = _weighted_sums(output_rows, self.output_gradient, starts, values)
        (of_values,) = torch.autograd.grad(of_dec, values, w_dec)
        features = self.features[first:last] - start
        radial = of_values.new_zeros(stop - start)
        radial.index_add_(0, features, of_values * self.values[first:last])
        if self.of_values is not None:
            of_values = of_values + self.of_values[first:last]
        # ReLU is open where an entry was kept: a value's gradient is its pre-activation's
        of_enc = _weighted_sums(rows, self.x, starts, of_values)
        of_bias = of_values.new_zeros(stop - start).index_add_(0, features, of_values)
        return Block(of_enc, of_dec.detach(), of_bias, radial), of_values


def sparse_row_gradients(
    code: SparseCode,
    output_gradient: Rows,
    x: Rows,
    of_values: Float[Tensor, "n"] | None = None,
    output_rows: Int64[Tensor, "n"] | None = None,
) -> tuple[SparseRowGradients, Int64[Tensor, "n"]]:
    """Sort the entries of ``code`` by feature; return them, and where each came from."""
    features, order = torch.sort(code.features, stable=True)
    edges = torch.arange(code.n_features + 1, device=features.device)
    gradients = SparseRowGradients(
        starts=torch.searchsorted(features, edges),
        features=features,
        rows=code.rows[order],
        values=code.values[order],
        output_gradient=output_gradient,
        x=x,
        of_values=None if of_values is None else of_values[order],
        output_rows=None if output_rows is None else output_rows[order],
    )
    return gradients, order


@dataclass(frozen=True, eq=False)
class ChosenRowGradients:
    """Of a few features, already made.

    Attributes:
        features: ascending.
        gradients: one row per feature.
    """

    features: Int64[Tensor, "n"]
    gradients: Block

    def block(self, start: int, stop: int, w_dec: Float[Tensor, "R d"]) -> Block:
        """Return the gradients of dictionary rows ``start`` to ``stop``."""
        edges = torch.tensor([start, stop], device=self.features.device)
        first, last = torch.searchsorted(self.features, edges).tolist()
        rows = self.features[first:last] - start
        some = self.gradients
        return Block(
            w_enc=torch.zeros_like(w_dec).index_copy_(0, rows, some.w_enc[first:last]),
            w_dec=torch.zeros_like(w_dec).index_copy_(0, rows, some.w_dec[first:last]),
            b_enc=w_dec.new_zeros(stop - start).index_copy_(0, rows, some.b_enc[first:last]),
            radial=w_dec.new_zeros(stop - start).index_copy_(0, rows, some.radial[first:last]),
        )


@dataclass(frozen=True, eq=False)
class SummedRowGradients:
    """The sum of two losses' gradients."""

    first: RowGradients
    second: RowGradients

    def block(self, start: int, stop: int, w_dec: Float[Tensor, "R d"]) -> Block:
        """Return the gradients of dictionary rows ``start`` to ``stop``."""
        one, two = (part.block(start, stop, w_dec) for part in (self.first, self.second))
        return Block(
            w_enc=one.w_enc.add_(two.w_enc),
            w_dec=one.w_dec.add_(two.w_dec),
            b_enc=one.b_enc.add_(two.b_enc),
            radial=one.radial.add_(two.radial),
        )


def _weighted_sums(
    rows: Int64[Tensor, "n"],
    table: Rows,
    starts: Int64[Tensor, "R+1"],
    weights: Float[Tensor, "n"],
) -> Float[Tensor, "R d"]:
    return embedding_bag(
        rows, table, starts, mode="sum", per_sample_weights=weights, include_last_offset=True
    )
