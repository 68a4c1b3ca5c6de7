"""Each method's loss on a batch, with exact gradients, over the rows of all ranks.

Ranks exchange their rows of the batch, of the error and of the code, not gradients: each then makes
every gradient from the same numbers in the same order, as one process would. The methods that keep
the largest entries come first, then those whose features decide one by one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitscope.axes import Float, Int64, Rows
from vitscope.distributed import Ranks
from vitscope.sae.code import SparseCode, sum_of_squares
from vitscope.sae.gradients import Gradients, RowBlock, sparse_row_gradients
from vitscope.sae.parameters import Parameters
from vitscope.sae.selection import PreActivationBuffer
from vitscope.sae.settings import JumpRelu, ReluL1

SPARSE_UP_TO = 1 / 64
"""Share of active entries up to which sparse sums are faster than dense products."""

_DECODED_FEATURES = 512
"""Features decoded at a time, where entries are many."""


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """A batch and its pre-activations, on one rank.

    Attributes:
        x: normalised inputs.
        centred: x − b_dec.
        buffer: its pre-activations.
        parameters: the SAE in training.
        n_rows: rows of all ranks.
        first_row: rows of the lower ranks.
        ranks: who holds the others.
    """

    x: Rows
    centred: Rows
    buffer: PreActivationBuffer
    parameters: Parameters
    n_rows: int
    first_row: int
    ranks: Ranks

    @property
    def n_elements(self) -> int:
        """B·d, over all ranks."""
        return self.n_rows * self.x.shape[1]

    def of_all_ranks(self, code: SparseCode) -> SparseCode:
        """Return the code of all ranks' rows."""
        return code.gathered(self.n_rows, self.first_row, self.ranks)


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What a method made of a batch.

    Attributes:
        error: x̂ − x of this rank's rows.
        errors: of all ranks' rows.
        loss: what the method minimises, penalty included.
        gradients: of that loss.
        fired: features that are active somewhere in the batch, with or without repetition.
        n_active: active entries.
        code: the active entries, where they are few enough to be listed.
    """

    error: Rows
    errors: Rows
    loss: Float[Tensor, ""]
    gradients: Gradients
    fired: Int64[Tensor, "n"]
    n_active: int
    code: SparseCode | None = None


def reconstruct_kept(batch: TrainingBatch, mine: SparseCode) -> Reconstruction:
    """Return ``Σ‖x − x̂‖² / (B·d)`` and its gradients for the entries ``mine`` of this rank."""
    decoder = batch.parameters
    error = mine.decode(decoder.w_dec).add_(decoder.b_dec).sub_(batch.x)
    code, errors = batch.of_all_ranks(mine), batch.ranks.all_gather(error)
    of_output = errors * (2 / batch.n_elements)
    rows, _ = sparse_row_gradients(code, of_output, batch.ranks.all_gather(batch.centred))
    return Reconstruction(
        error=error,
        errors=errors,
        loss=sum_of_squares(errors) / batch.n_elements,
        gradients=Gradients(rows, of_output.sum(0)),
        fired=code.features,
        n_active=code.n,
        code=code,
    )


def reconstruct_nested(
    batch: TrainingBatch, mine: SparseCode, ends: tuple[int, ...]
) -> Reconstruction:
    """Return the mean over prefixes of the dictionary of their losses, and its gradients.

    A feature's row takes part in every prefix that reaches it, so its output gradient is the sum
    of theirs. Those sums, one table a segment between two ends, stand below each other, and every
    entry looks its row up in its segment's table: the same sparse sums as without prefixes.

    Args:
        batch: encoded.
        mine: kept entries of this rank.
        ends: features of each prefix, ascending to m.
    """
    gather, w_dec = batch.ranks.all_gather, batch.parameters.w_dec
    edges = torch.tensor(ends, device=w_dec.device)
    segment = torch.searchsorted(edges, mine.features, right=True)
    error, parts = batch.parameters.b_dec - batch.x, list[Rows]()
    for number in range(len(ends)):
        error = error + mine.take(segment == number).decode(w_dec)
        parts.append(gather(error))
    weight = 2 / (batch.n_elements * len(ends))
    squares = torch.stack([sum_of_squares(part) for part in parts])
    tables = torch.stack(parts).mul_(weight).flip(0).cumsum(0).flip(0)
    code = batch.of_all_ranks(mine)
    segment = torch.searchsorted(edges, code.features, right=True)
    rows, _ = sparse_row_gradients(
        code, tables.flatten(0, 1), gather(batch.centred),
        output_rows=segment * batch.n_rows + code.rows,
    )  # fmt: skip
    return Reconstruction(
        error=error,
        errors=parts[-1],
        loss=squares.mean() / batch.n_elements,
        gradients=Gradients(rows, tables[0].sum(0)),
        fired=code.features,
        n_active=code.n,
        code=code,
    )


def reconstruct_gated(
    batch: TrainingBatch, method: ReluL1 | JumpRelu, k: int, *, sparse_up_to: float = SPARSE_UP_TO
) -> Reconstruction:
    """Return the reconstruction loss plus the method's penalty, and their gradients.

    Args:
        batch: encoded.
        method: which penalty.
        k: K, the L0 that JumpReLU is pulled to.
        sparse_up_to: share of active entries up to which they are listed.
    """
    thresholds, width = _gates(batch, method)
    at_most = int(sparse_up_to * batch.buffer.n_features * batch.buffer.n_rows)
    near = batch.buffer.above((thresholds - width / 2).clamp_min(0), at_most)
    if int(batch.ranks.sum(torch.tensor([near is None], device=thresholds.device).long())):
        return _dense(batch, method, k, thresholds)
    assert near is not None
    return _sparse(batch, method, k, thresholds, near)


def _gates(batch: TrainingBatch, method: ReluL1 | JumpRelu) -> tuple[Float[Tensor, "m"], float]:
    """Return every feature's θ and the width of the window around it."""
    learned = batch.parameters.log_threshold
    if isinstance(method, ReluL1) or learned is None:
        return torch.zeros_like(batch.parameters.b_enc), 0.0
    return learned.exp(), method.bandwidth


def _penalty(
    batch: TrainingBatch, method: ReluL1 | JumpRelu, k: int, n_active: int, total: Tensor
) -> tuple[Tensor, float]:
    """Return the penalty, and its derivative by a code (ReLU) or by an entry's count (JumpReLU)."""
    if isinstance(method, ReluL1):
        each = method.coefficient / batch.n_elements
        return each * total, each
    excess = n_active / (batch.n_rows * k) - 1
    each = 2 * method.coefficient * excess / (batch.n_rows * k)
    return total.new_tensor(method.coefficient * excess**2), each


def _sparse(
    batch: TrainingBatch,
    method: ReluL1 | JumpRelu,
    k: int,
    thresholds: Float[Tensor, "m"],
    near: SparseCode,
) -> Reconstruction:
    mine = near.take(near.values > thresholds[near.features])
    decoder, gather = batch.parameters, batch.ranks.all_gather
    error = mine.decode(decoder.w_dec).add_(decoder.b_dec).sub_(batch.x)
    code, errors = batch.of_all_ranks(mine), gather(error)
    penalty, each = _penalty(batch, method, k, code.n, code.values.sum())
    of_values = torch.full_like(code.values, each) if isinstance(method, ReluL1) else None
    of_output = errors * (2 / batch.n_elements)
    rows, _ = sparse_row_gradients(code, of_output, gather(batch.centred), of_values)
    of_log_threshold = None
    if isinstance(method, JumpRelu):
        theta = thresholds[near.features]
        through = _value_gradients(near, error * (2 / batch.n_elements), decoder.w_dec)
        pull = _pull(near.values, theta, through, each, method.bandwidth)
        of_log_threshold = torch.zeros_like(thresholds).index_add_(0, near.features, pull)
        of_log_threshold = batch.ranks.sum(of_log_threshold)
    return Reconstruction(
        error=error,
        errors=errors,
        loss=sum_of_squares(errors) / batch.n_elements + penalty,
        gradients=Gradients(rows, of_output.sum(0), of_log_threshold),
        fired=code.features,
        n_active=code.n,
        code=code,
    )


def _pull(
    pre: Tensor, theta: Tensor, of_values: Tensor, each: float, bandwidth: float
) -> Float[Tensor, "*n"]:
    """Return each pre-activation's share of the gradient of its feature's log θ.

    The straight-through estimate of Rajamanoharan et al. (2024): with K = 1 on a window of width ε
    around θ and 0 outside, ∂JumpReLU/∂θ = −(θ/ε)·K and ∂step/∂θ = −(1/ε)·K. The first meets the
    gradient of the value, the second the penalty's of the count; and ∂θ/∂log θ = θ.
    """
    inside = ((pre - theta).abs() < bandwidth / 2) & (pre > 0)
    return -theta * (theta * of_values + each) / bandwidth * inside


def _value_gradients(
    code: SparseCode, of_output: Rows, w_dec: Float[Tensor, "m d"]
) -> Float[Tensor, "n"]:
    """Return the inner product of each entry's decoder row with its token's output gradient."""
    values = code.values.detach().clone().requires_grad_()
    with torch.enable_grad():
        decoded = code.with_values(values).decode(w_dec)
    return torch.autograd.grad(decoded, values, of_output)[0]


def _dense(
    batch: TrainingBatch, method: ReluL1 | JumpRelu, k: int, thresholds: Float[Tensor, "m"]
) -> Reconstruction:
    decoder, buffer, ranks = batch.parameters, batch.buffer, batch.ranks
    error = decoder.b_dec - batch.x
    count, total = torch.zeros_like(thresholds), thresholds.new_zeros(())
    for part in _parts(buffer.n_features):
        pre = buffer.block(part.start, part.stop)
        codes = pre * (pre > thresholds[part, None])
        count[part] = (codes > 0).sum(1).to(count.dtype)
        total += codes.sum()
        error.addmm_(codes.T, decoder.w_dec[part])
    counts, total = ranks.sum(count), ranks.sum(total)
    errors, n_active = ranks.all_gather(error), int(counts.double().sum())
    penalty, each = _penalty(batch, method, k, n_active, total)
    of_output, of_log_threshold = error * (2 / batch.n_elements), None
    if isinstance(method, JumpRelu):
        of_log_threshold = torch.zeros_like(thresholds)
        for part in _parts(buffer.n_features):
            pre, theta = buffer.block(part.start, part.stop), thresholds[part, None]
            through = decoder.w_dec[part] @ of_output.T
            pulls = _pull(pre, theta, through, each, method.bandwidth)
            of_log_threshold[part] = pulls.sum(1)
        of_log_threshold = ranks.sum(of_log_threshold)
    of_values = each if isinstance(method, ReluL1) else 0.0
    rows = DenseRowGradients(batch, thresholds, of_output, of_values)
    return Reconstruction(
        error=error,
        errors=errors,
        loss=sum_of_squares(errors) / batch.n_elements + penalty,
        gradients=Gradients(rows, ranks.sum(of_output.sum(0)), of_log_threshold),
        fired=counts.nonzero().squeeze(1),
        n_active=n_active,
    )


def _parts(n_features: int) -> list[slice]:
    step = _DECODED_FEATURES
    return [slice(start, min(start + step, n_features)) for start in range(0, n_features, step)]


@dataclass(frozen=True, eq=False)
class DenseRowGradients:
    """Gradients of a code with many entries, by dense products in blocks; summed over ranks.

    Attributes:
        batch: encoded.
        thresholds: θ of every feature.
        output_gradient: of this rank's decoded rows.
        of_values: gradient of every active value by another way than the decoder.
    """

    batch: TrainingBatch
    thresholds: Float[Tensor, "m"]
    output_gradient: Rows
    of_values: float

    def block(self, start: int, stop: int, w_dec: Float[Tensor, "R d"]) -> RowBlock:
        """Return the gradients of dictionary rows ``start`` to ``stop``."""
        pre = self.batch.buffer.block(start, stop)
        active = pre > self.thresholds[start:stop, None]
        codes = pre * active
        of_values = w_dec @ self.output_gradient.T
        total = self.batch.ranks.sum
        radial = total((of_values * codes).sum(1))
        of_pre = (of_values + self.of_values) * active
        return RowBlock(
            w_enc=total(of_pre @ self.batch.centred),
            w_dec=total(codes @ self.output_gradient),
            b_enc=total(of_pre.sum(1)),
            radial=radial,
        )
