"""Batch top-k autoencoding as one differentiable operation, for losses of one's own."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vitscope.axes import Float, Int64, Rows
from vitscope.errors import SaeError
from vitscope.sae.kept_activations import KeptActivations
from vitscope.sae.row_gradients import sparse_row_gradients
from vitscope.sae.sparse_code import SparseCode, decode


@dataclass(frozen=True, eq=False)
class Autoencoded:
    """What :func:`batch_topk_autoencode` returns.

    Attributes:
        x_hat: reconstruction ``[B, d]``; carries gradients.
        values: the kept activations, n of them, by token; carry gradients.
        rows: token of each.
        features: feature of each.
    """

    x_hat: Rows
    values: Float[Tensor, "n"]
    rows: Int64[Tensor, "n"]
    features: Int64[Tensor, "n"]


def batch_topk_autoencode(
    x: Rows,
    w_enc: Float[Tensor, "m d"],
    b_enc: Float[Tensor, "m"],
    w_dec: Float[Tensor, "m d"],
    b_dec: Float[Tensor, "d"],
    k: int,
    kept: KeptActivations | None = None,
) -> Autoencoded:
    """Encode, keep the B·k largest positive pre-activations of the batch, decode.

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
        kept: a buffer for B rows, used again and again; None makes one for this call.

    Raises:
        SaeError: shapes do not fit each other.
        FloatingPointError: a pre-activation is NaN.
    """
    _require_fit(x, w_enc, b_enc, w_dec, b_dec, k, kept)
    with torch.no_grad():
        if kept is None:
            kept = KeptActivations(x.shape[0], w_enc.shape[0], like=x)
        kept.encode(x - b_dec, w_enc, b_enc)
        code = kept.largest(x.shape[0] * k)
    x_hat, values = _Autoencode.apply(x, w_enc, b_enc, w_dec, b_dec, code)
    return Autoencoded(x_hat, values, code.rows, code.features)


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
        return decode(code, w_dec).add_(b_dec), code.values.clone()

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
        rows = SparseCode(code.rows, code.features, of_pre, code.n_rows, code.n_features)
        of_x = decode(rows, w_enc)
        of_b_dec = of_x_hat.sum(0) - of_x.sum(0)
        return of_x, block.w_enc, block.b_enc, block.w_dec, of_b_dec, None


def _require_fit(
    x: Tensor,
    w_enc: Tensor,
    b_enc: Tensor,
    w_dec: Tensor,
    b_dec: Tensor,
    k: int,
    kept: KeptActivations | None,
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
    if kept is not None and (kept.n_rows, kept.n_features) != (x.shape[0], m):
        raise SaeError(
            f"kept is for {kept.n_rows} rows and {kept.n_features} features, but the batch has "
            f"{x.shape[0]} and the dictionary {m}"
        )
