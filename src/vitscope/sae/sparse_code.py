"""A batch of codes as its non-zero entries alone, and the linear algebra that this makes cheap.

A batch has B·K entries of B·m. Decoding and all gradients are sums of a few weighted rows, which
``embedding_bag`` computes without a dense ``[B, m]`` code.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from vitscope.axes import Float, Int64, Rows


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


@dataclass(frozen=True, eq=False)
class WeightGradients:
    """Gradients of both weight matrices (one row per feature) and of the encoder bias."""

    w_enc: Float[Tensor, "m d"]
    w_dec: Float[Tensor, "m d"]
    b_enc: Float[Tensor, "m"]


def decode(code: SparseCode, w_dec: Float[Tensor, "m d"]) -> Rows:
    """Return ``code @ w_dec``, ``[B, d]``."""
    return embedding_bag(
        code.features,
        w_dec,
        _starts(code.rows, code.n_rows),
        mode="sum",
        per_sample_weights=code.values,
    )


def value_gradients(
    code: SparseCode, w_dec: Float[Tensor, "m d"], output_gradient: Rows
) -> Float[Tensor, "n"]:
    """Return the gradient of each entry's value, given that of the decoded rows."""
    values = code.values.detach().requires_grad_()
    leaf = SparseCode(code.rows, code.features, values, code.n_rows, code.n_features)
    with torch.enable_grad():  # w_dec asks for no gradient, so only the values' is computed
        decoded = decode(leaf, w_dec)
    (gradient,) = torch.autograd.grad(decoded, values, output_gradient)
    return gradient


def weight_gradients(
    code: SparseCode, of_values: Float[Tensor, "n"], output_gradient: Rows, x: Rows
) -> WeightGradients:
    """Return the gradients of the weights, given those of the values and of the decoded rows.

    Args:
        code: the entries.
        of_values: gradient of each value, hence of its pre-activation (ReLU is open there).
        output_gradient: gradient of the decoded rows ``[B, d]``.
        x: what the encoder was multiplied with ``[B, d]``.
    """
    features, order = torch.sort(code.features, stable=True)
    rows, starts = code.rows[order], _starts(features, code.n_features)
    w_dec = embedding_bag(
        rows, output_gradient, starts, mode="sum", per_sample_weights=code.values[order]
    )
    w_enc = embedding_bag(rows, x, starts, mode="sum", per_sample_weights=of_values[order])
    b_enc = of_values.new_zeros(code.n_features).index_add_(0, code.features, of_values)
    return WeightGradients(w_enc, w_dec, b_enc)


def _starts(ascending: Int64[Tensor, "n"], n_bags: int) -> Int64[Tensor, "n_bags"]:
    """Position at which each bag starts, in a list sorted by bag."""
    sizes = torch.bincount(ascending, minlength=n_bags)
    return torch.cumsum(sizes, 0) - sizes
