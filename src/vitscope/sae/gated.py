"""ReLU + L1 and JumpReLU: every feature decides for itself whether it is active.

Nothing bounds the number of active entries. Where they are few, the sparse sums of the top-k
methods are used; where they are many, at the start, dense products in blocks of features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitscope.axes import Float, Rows
from vitscope.distributed import Ranks
from vitscope.sae.kept_activations import KeptActivations
from vitscope.sae.losses import Encoded, Reconstructed, sum_of_squares
from vitscope.sae.methods import JumpRelu, ReluL1
from vitscope.sae.row_gradients import Block, sparse_row_gradients
from vitscope.sae.sparse_code import SparseCode, decode

SPARSE_UP_TO = 1 / 64
"""Share of active entries up to which sparse sums are faster than dense products."""

ROWS_AT_ONCE = 512
"""Features decoded at a time, where entries are many."""


def reconstruct_gated(
    batch: Encoded, method: ReluL1 | JumpRelu, k: int, *, sparse_up_to: float = SPARSE_UP_TO
) -> Reconstructed:
    """Return the reconstruction loss plus the method's penalty, and their gradients.

    Args:
        batch: encoded.
        method: which penalty.
        k: K, the L0 that JumpReLU is pulled to.
        sparse_up_to: share of active entries up to which they are listed.
    """
    thresholds, width = _gates(batch, method)
    at_most = int(sparse_up_to * batch.kept.n_features * batch.kept.n_rows)
    near = batch.kept.above((thresholds - width / 2).clamp_min(0), at_most)
    if int(batch.ranks.sum(torch.tensor([near is None], device=thresholds.device).long())):
        return _dense(batch, method, k, thresholds)
    assert near is not None
    return _sparse(batch, method, k, thresholds, near)


def _gates(batch: Encoded, method: ReluL1 | JumpRelu) -> tuple[Float[Tensor, "m"], float]:
    """Return every feature's θ and the width of the window around it."""
    learned = batch.parameters.log_threshold
    if isinstance(method, ReluL1) or learned is None:
        return torch.zeros_like(batch.parameters.b_enc), 0.0
    return learned.exp(), method.bandwidth


def _penalty(
    batch: Encoded, method: ReluL1 | JumpRelu, k: int, n_active: int, total: Tensor
) -> tuple[Tensor, float]:
    """Return the penalty, and its derivative by a code (ReLU) or by an entry's count (JumpReLU)."""
    if isinstance(method, ReluL1):
        each = method.coefficient / batch.n_elements
        return each * total, each
    excess = n_active / (batch.n_rows * k) - 1
    each = 2 * method.coefficient * excess / (batch.n_rows * k)
    return total.new_tensor(method.coefficient * excess**2), each


def _sparse(
    batch: Encoded,
    method: ReluL1 | JumpRelu,
    k: int,
    thresholds: Float[Tensor, "m"],
    near: SparseCode,
) -> Reconstructed:
    active = near.values > thresholds[near.features]
    mine = SparseCode(
        near.rows[active], near.features[active], near.values[active], near.n_rows, near.n_features
    )
    decoder, gather = batch.parameters, batch.ranks.gather
    error = decode(mine, decoder.w_dec).add_(decoder.b_dec).sub_(batch.x)
    code, errors = batch.of_all(mine), gather(error)
    penalty, each = _penalty(batch, method, k, code.n, code.values.sum())
    of_values = torch.full_like(code.values, each) if isinstance(method, ReluL1) else None
    of_output = errors * (2 / batch.n_elements)
    rows, _ = sparse_row_gradients(code, of_output, gather(batch.centred), of_values)
    of_log_threshold = None
    if isinstance(method, JumpRelu):
        theta = thresholds[near.features]
        inside = (near.values - theta).abs() < method.bandwidth / 2
        of_mine = error * (2 / batch.n_elements)
        through = _value_gradients(near, of_mine, decoder.w_dec)
        pull = (-theta * (theta * through + each) / method.bandwidth) * inside
        of_log_threshold = torch.zeros_like(thresholds).index_add_(0, near.features, pull)
        of_log_threshold = batch.ranks.sum(of_log_threshold)
    return Reconstructed(
        error=error,
        errors=errors,
        loss=sum_of_squares(errors) / batch.n_elements + penalty,
        rows=rows,
        output=of_output.sum(0),
        fired=code.features,
        n_active=code.n,
        code=code,
        log_threshold=of_log_threshold,
    )


def _value_gradients(
    code: SparseCode, of_output: Rows, w_dec: Float[Tensor, "m d"]
) -> Float[Tensor, "n"]:
    """Return the inner product of each entry's decoder row with its token's output gradient."""
    values = code.values.detach().clone().requires_grad_()
    with torch.enable_grad():
        decoded = decode(
            SparseCode(code.rows, code.features, values, code.n_rows, code.n_features), w_dec
        )
    return torch.autograd.grad(decoded, values, of_output)[0]


def _dense(
    batch: Encoded, method: ReluL1 | JumpRelu, k: int, thresholds: Float[Tensor, "m"]
) -> Reconstructed:
    decoder, kept, ranks = batch.parameters, batch.kept, batch.ranks
    error = decoder.b_dec - batch.x
    count, total = torch.zeros_like(thresholds), thresholds.new_zeros(())
    for start in range(0, kept.n_features, ROWS_AT_ONCE):
        part = slice(start, min(start + ROWS_AT_ONCE, kept.n_features))
        pre = kept.block(part.start, part.stop)
        codes = pre * (pre > thresholds[part, None])
        count[part] = (codes > 0).sum(1).to(count.dtype)
        total += codes.sum()
        error.addmm_(codes.T, decoder.w_dec[part])
    counts, total = ranks.sum(count), ranks.sum(total)
    errors, n_active = ranks.gather(error), int(counts.double().sum())
    penalty, each = _penalty(batch, method, k, n_active, total)
    of_output = error * (2 / batch.n_elements)
    jump = method if isinstance(method, JumpRelu) else None
    rows = DenseRowGradients(
        kept, thresholds, of_output, batch.centred, 0.0 if jump else each, ranks
    )
    return Reconstructed(
        error=error,
        errors=errors,
        loss=sum_of_squares(errors) / batch.n_elements + penalty,
        rows=rows,
        output=ranks.sum(of_output.sum(0)),
        fired=counts.nonzero().squeeze(1),
        n_active=n_active,
        log_threshold=None if jump is None else _pulls(rows, decoder.w_dec, jump, each),
    )


def _pulls(
    rows: "DenseRowGradients", w_dec: Float[Tensor, "m d"], method: JumpRelu, each: float
) -> Float[Tensor, "m"]:
    pulls = torch.zeros_like(rows.thresholds)
    for start in range(0, w_dec.shape[0], ROWS_AT_ONCE):
        part = slice(start, min(start + ROWS_AT_ONCE, w_dec.shape[0]))
        theta = rows.thresholds[part, None]
        pre = rows.kept.block(part.start, part.stop)
        inside = ((pre - theta).abs() < method.bandwidth / 2) & (pre > 0)
        through = w_dec[part] @ rows.output_gradient.T
        pulls[part] = (-theta * (theta * through + each) / method.bandwidth * inside).sum(1)
    return rows.ranks.sum(pulls)


@dataclass(frozen=True, eq=False)
class DenseRowGradients:
    """Of a code with many entries, by dense products in blocks; summed over ranks.

    Attributes:
        kept: pre-activations.
        thresholds: θ of every feature.
        output_gradient: of this rank's decoded rows.
        x: what the encoder was multiplied with.
        of_values: gradient of every active value by another way than the decoder.
        ranks: who holds the other rows.
    """

    kept: KeptActivations
    thresholds: Float[Tensor, "m"]
    output_gradient: Rows
    x: Rows
    of_values: float
    ranks: Ranks

    def block(self, start: int, stop: int, w_dec: Float[Tensor, "R d"]) -> Block:
        """Return the gradients of dictionary rows ``start`` to ``stop``."""
        pre = self.kept.block(start, stop)
        active = pre > self.thresholds[start:stop, None]
        codes = pre * active
        of_values = w_dec @ self.output_gradient.T
        total = self.ranks.sum
        radial = total((of_values * codes).sum(1))
        of_pre = (of_values + self.of_values) * active
        return Block(
            w_enc=total(of_pre @ self.x),
            w_dec=total(codes @ self.output_gradient),
            b_enc=total(of_pre.sum(1)),
            radial=radial,
        )
