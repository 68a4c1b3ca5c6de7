"""Exact gradients of a sparse code, by hand: for the trainer by blocks, for others by autograd.

With codes ``a`` (what is kept is constant under differentiation, and ReLU is open there), decoded
rows ``x̂ = a @ W_dec + b_dec`` and their gradient ``G = ∂loss/∂x̂``, the chain rule gives, as sums
over the entries i of a feature j, entry i being of token t(i) with value a_i:

    ∂W_dec[j] = Σ a_i · G[t(i)]                 ∂a_i = G[t(i)] · W_dec[j]
    ∂W_enc[j] = Σ ∂a_i · (x − b_dec)[t(i)]      ∂b_enc[j] = Σ ∂a_i
    ∂b_dec    = Σ_t G[t] − Σ_j ∂b_enc[j] · W_enc[j], b_dec being subtracted before the encoder

So row j of either matrix's gradient is a weighted sum of the batch rows on which j was kept. After
one sort by feature that is ``embedding_bag`` again, the features now the bags. Made right before it
is used, a block's gradients stay in the cache, and ``[m, d]`` of them out of memory.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from vitscope.axes import Float, Int64, Rows
from vitscope.errors import SaeError
from vitscope.sae.code import SparseCode
from vitscope.sae.parameters import Parameters
from vitscope.sae.selection import PreActivationBuffer


@dataclass(frozen=True, eq=False)
class RowBlock:
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

    def block(self, start: int, stop: int, w_dec: Float[Tensor, "R d"]) -> RowBlock:
        """Return new tensors: the gradients of dictionary rows ``start`` to ``stop``.

        Args:
            start: first row.
            stop: the row after the last.
            w_dec: these rows of the decoder that the loss was computed with.
        """
        ...


@dataclass(frozen=True, eq=False)
class SparseRowGradients:
    """Gradients of a code with few entries, which are sorted by feature.

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

    def block(self, start: int, stop: int, w_dec: Float[Tensor, "R d"]) -> RowBlock:
        """Return the gradients of dictionary rows ``start`` to ``stop``."""
        return self.block_and_values(start, stop, w_dec)[0]

    def block_and_values(
        self, start: int, stop: int, w_dec: Float[Tensor, "R d"]
    ) -> tuple[RowBlock, Float[Tensor, "n_block"]]:
        """Return the gradients of rows ``start`` to ``stop``, and those of their entries' values.

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
        return RowBlock(of_enc, of_dec.detach(), of_bias, radial), of_values


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
    """Gradients of a few features, already made; zero for all others.

    Attributes:
        features: ascending.
        gradients: one row per feature.
    """

    features: Int64[Tensor, "n"]
    gradients: RowBlock

    def block(self, start: int, stop: int, w_dec: Float[Tensor, "R d"]) -> RowBlock:
        """Return the gradients of dictionary rows ``start`` to ``stop``."""
        edges = torch.tensor([start, stop], device=self.features.device)
        first, last = torch.searchsorted(self.features, edges).tolist()
        rows = self.features[first:last] - start
        some = self.gradients
        return RowBlock(
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

    def block(self, start: int, stop: int, w_dec: Float[Tensor, "R d"]) -> RowBlock:
        """Return the gradients of dictionary rows ``start`` to ``stop``."""
        one, two = (part.block(start, stop, w_dec) for part in (self.first, self.second))
        return RowBlock(
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


@dataclass(frozen=True, eq=False)
class Gradients:
    """Gradients of every parameter; a feature's are made when a block of rows is asked for.

    Attributes:
        rows: of the dictionary's rows: both matrices and the encoder bias.
        output: of ``b_dec`` as far as it is added to the output. It is also subtracted before the
            encoder, hence its whole gradient is ``output - b_enc @ w_enc``, ``b_enc`` being the
            encoder bias's gradient.
        log_threshold: of the logarithm of every θ, where the method learns one.
    """

    rows: RowGradients
    output: Float[Tensor, "d"]
    log_threshold: Float[Tensor, "m"] | None = None

    def whole(self, parameters: Parameters) -> Parameters:
        """Return all of them at once, ``[m, d]`` twice: for looking at, not for training."""
        of_rows = self.rows.block(0, parameters.w_dec.shape[0], parameters.w_dec)
        return Parameters(
            w_enc=of_rows.w_enc,
            b_enc=of_rows.b_enc,
            w_dec=of_rows.w_dec,
            b_dec=self.output - of_rows.b_enc @ parameters.w_enc,
            log_threshold=self.log_threshold,
        )


def batch_topk_autoencode(
    x: Rows,
    w_enc: Float[Tensor, "m d"],
    b_enc: Float[Tensor, "m"],
    w_dec: Float[Tensor, "m d"],
    b_dec: Float[Tensor, "d"],
    k: int,
    buffer: PreActivationBuffer | None = None,
) -> tuple[Rows, SparseCode]:
    """Batch top-k autoencoding as one differentiable operation, for losses of one's own.

    Encode, keep the B·k largest positive pre-activations of the batch, decode.

    Equal, gradients of every input included, to the dense form: ``pre = (x - b_dec) @ w_enc.T +
    b_enc``; all but the B·k largest positive entries of ``pre`` set to zero, the lower token and
    then the lower feature winning among equals; ``x_hat = code @ w_dec + b_dec``. What is kept is
    constant under differentiation. Only first derivatives exist.

    Args:
        x: inputs ``[B, d]``.
        w_enc: encoder, a row per feature.
        b_enc: its bias.
        w_dec: decoder, a row per feature; need not be unit.
        b_dec: decoder bias.
        k: K, at least 0.
        buffer: for B rows, used again and again; None makes one for this call.

    Returns:
        The reconstruction ``[B, d]`` and the kept entries by token. The reconstruction and the
        entries' values carry gradients.

    Raises:
        SaeError: shapes do not fit each other.
        FloatingPointError: a pre-activation is NaN.
    """
    _require_fit(x, w_enc, b_enc, w_dec, b_dec, k, buffer)
    with torch.no_grad():
        if buffer is None:
            buffer = PreActivationBuffer(x.shape[0], w_enc.shape[0], like=x)
        buffer.encode(x - b_dec, w_enc, b_enc)
        code = buffer.largest(x.shape[0] * k)
    x_hat, values = _Autoencode.apply(x, w_enc, b_enc, w_dec, b_dec, code)
    return x_hat, code.with_values(values)


class _Autoencode(Function):
    """From a code that is known to the reconstruction, and back to everything."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] torch asks for own arguments
        ctx: Any,
        x: Tensor,
        w_enc: Tensor,
        b_enc: Tensor,  # noqa: ARG004 an input only so that it gets its gradient
        w_dec: Tensor,
        b_dec: Tensor,
        code: SparseCode,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, w_enc, w_dec, b_dec)
        ctx.code = code
        return code.decode(w_dec).add_(b_dec), code.values.clone()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, of_x_hat: Tensor, of_values: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, w_enc, w_dec, b_dec = ctx.saved_tensors
        code: SparseCode = ctx.code
        of_x_hat = of_x_hat.contiguous()
        gradients, order = sparse_row_gradients(code, of_x_hat, x - b_dec, of_values)
        block, by_feature = gradients.block_and_values(0, code.n_features, w_dec.detach())
        of_pre = torch.empty_like(by_feature).index_copy_(0, order, by_feature)
        of_x = code.with_values(of_pre).decode(w_enc)
        of_b_dec = of_x_hat.sum(0) - of_x.sum(0)
        return of_x, block.w_enc, block.b_enc, block.w_dec, of_b_dec, None


def _require_fit(
    x: Tensor,
    w_enc: Tensor,
    b_enc: Tensor,
    w_dec: Tensor,
    b_dec: Tensor,
    k: int,
    buffer: PreActivationBuffer | None,
) -> None:
    shapes = [list(tensor.shape) for tensor in (x, w_enc, b_enc, w_dec, b_dec)]
    m, d = w_enc.shape
    if x.ndim != 2 or shapes != [[x.shape[0], d], [m, d], [m], [m, d], [d]]:
        raise SaeError(
            f"x, w_enc, b_enc, w_dec, b_dec have shapes {shapes}; expected [B, d], [m, d], [m], "
            "[m, d], [d], a feature a row in both matrices"
        )
    if k < 0:
        raise SaeError(f"k is {k}; it must not be negative")
    if buffer is not None and (buffer.n_rows, buffer.n_features) != (x.shape[0], m):
        raise SaeError(
            f"buffer is for {buffer.n_rows} rows and {buffer.n_features} features, but the batch "
            f"has {x.shape[0]} and the dictionary {m}"
        )
