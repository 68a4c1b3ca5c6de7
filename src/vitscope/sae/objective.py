"""The training objective over the batch of all ranks: a method's loss, and the auxiliary loss.

The auxiliary loss lets dead features learn to reconstruct what the live ones leave over. It reads
the dead features' rows from the buffer of pre-activations, so its cost grows with the number of
dead features, not with the dictionary.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vitscope.axes import Bool, Float, Int64, Rows
from vitscope.distributed import ALONE, Ranks
from vitscope.sae.code import SparseCode, sum_of_squares
from vitscope.sae.gradients import (
    ChosenRowGradients,
    Gradients,
    RowBlock,
    RowGradients,
    SummedRowGradients,
    sparse_row_gradients,
)
from vitscope.sae.losses import (
    Reconstruction,
    TrainingBatch,
    reconstruct_gated,
    reconstruct_kept,
    reconstruct_nested,
)
from vitscope.sae.parameters import Parameters
from vitscope.sae.selection import PreActivationBuffer
from vitscope.sae.settings import BatchTopK, JumpRelu, Matryoshka, Objective, ReluL1, TokenTopK

_DENSE_UP_TO = 16
"""With no more than this many dead features per one chosen, dense products over the dead features
are faster than sparse sums over the chosen entries."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Loss and gradients of one batch, that of all ranks together.

    Attributes:
        loss: ``Σ‖x − x̂‖² / (B·d)``: near the FVU, since normalised inputs have mean squared
            norm d. Penalties of the method included; of a matryoshka, the mean over prefixes.
        auxiliary: the auxiliary loss before its coefficient; 0 where no feature is dead.
        fvu: ``Σ‖x − x̂‖² / Σ‖x‖²`` of this batch, about the data set's mean.
        l0: active entries per token.
        n_rows: rows of all ranks.
        fired: features that were active, with or without repetition.
        gradients: of ``loss + aux_coefficient · auxiliary``.
        code: the active entries; None where a method had too many to list.
    """

    loss: Float[Tensor, ""]
    auxiliary: Float[Tensor, ""]
    fvu: Float[Tensor, ""]
    l0: float
    n_rows: int
    fired: Int64[Tensor, "n"]
    gradients: Gradients
    code: SparseCode | None = None


def evaluate(
    parameters: Parameters,
    x: Rows,
    objective: Objective,
    *,
    dead: Bool[Tensor, "m"] | None = None,
    buffer: PreActivationBuffer | None = None,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Return loss and gradients of a batch of normalised inputs.

    Args:
        parameters: the SAE in training, the same on every rank.
        x: this rank's rows ``[B, d]`` of the batch, after those of the lower ranks.
        objective: what is minimised.
        dead: which features are dead; None or none skips the auxiliary loss.
        buffer: where pre-activations are written, so that no step allocates them anew.
        ranks: who holds the other rows.

    Raises:
        FloatingPointError: pre-activations contain NaN, on any rank.
    """
    if buffer is None:
        buffer = PreActivationBuffer(x.shape[0], parameters.w_enc.shape[0], like=x)
    n_rows_of = ranks.all_gather(torch.tensor([x.shape[0]], device=x.device)).tolist()
    n_rows, first_row = sum(n_rows_of), sum(n_rows_of[: ranks.rank])
    centred = x - parameters.b_dec
    buffer.encode(centred, parameters.w_enc, parameters.b_enc)
    batch = TrainingBatch(x, centred, buffer, parameters, n_rows, first_row, ranks)
    found = _reconstructed(batch, objective)
    auxiliary, gradients = x.new_zeros(()), found.gradients
    if dead is not None and objective.aux_coefficient > 0 and bool(dead.any()):
        auxiliary, more = auxiliary_loss(batch, found, dead.nonzero().squeeze(1), objective)
        gradients = replace(gradients, rows=SummedRowGradients(gradients.rows, more))
    return Evaluation(
        loss=found.loss,
        auxiliary=auxiliary,
        fvu=sum_of_squares(found.errors) / ranks.sum(sum_of_squares(x)),
        l0=found.n_active / n_rows,
        n_rows=n_rows,
        fired=found.fired,
        gradients=gradients,
        code=found.code,
    )


def _reconstructed(batch: TrainingBatch, objective: Objective) -> Reconstruction:
    buffer, ranks, k = batch.buffer, batch.ranks, objective.k
    match objective.method:
        case BatchTopK():
            return reconstruct_kept(batch, buffer.largest(batch.n_rows * k, ranks))
        case Matryoshka(ends):
            return reconstruct_nested(batch, buffer.largest(batch.n_rows * k, ranks), ends)
        case TokenTopK():
            buffer.require_no_nan(ranks)
            return reconstruct_kept(batch, buffer.largest_of_each(k))
        case ReluL1() | JumpRelu():
            buffer.require_no_nan(ranks)
            return reconstruct_gated(batch, objective.method, k)


def auxiliary_loss(
    batch: TrainingBatch, found: Reconstruction, dead: Int64[Tensor, "n_dead"], objective: Objective
) -> tuple[Float[Tensor, ""], RowGradients]:
    """Return ``Σ‖r − r̂‖² / Σ‖r − mean r‖²`` over all ranks, and the gradients of its weighted form.

    r̂ reconstructs the residual r = x − x̂, a constant here, by each token's ``aux_k`` largest
    positive pre-activations among the dead features, without ``b_dec`` (Gao et al. 2024). The
    gradient, of coefficient · loss, reaches decoder *and* encoder rows.

    Args:
        batch: encoded.
        found: its reconstruction.
        dead: indices of the dead features, ascending, at least one.
        objective: ``aux_k`` and the coefficient.
    """
    w_dec, total = batch.parameters.w_dec, batch.ranks.sum
    of_dead = _dead_code(batch.buffer.of_features(dead), objective.aux_k)
    # a batch with no residual variance has nothing to teach; the floor only prevents 0 / 0
    variance = (found.errors - found.errors.mean(0)).square().sum()
    variance = variance.clamp_min(torch.finfo(w_dec.dtype).tiny)
    scale = 2 * objective.aux_coefficient / variance
    if dead.numel() <= _DENSE_UP_TO * objective.aux_k:
        rows = w_dec[dead]
        miss = torch.addmm(found.error, of_dead, rows)  # r̂ − r, the residual being −error
        of_output = miss * scale
        of_values = (of_output @ rows.T).mul_(of_dead > 0)
        block = RowBlock(
            w_enc=total(of_values.T @ batch.centred),
            w_dec=total(of_dead.T @ of_output),
            b_enc=total(of_values.sum(0)),
            radial=total((of_values * of_dead).sum(0)),
        )
        gradients: RowGradients = ChosenRowGradients(dead, block)
    else:
        mine = SparseCode.from_dense(of_dead)
        mine = replace(mine, features=dead[mine.features], n_features=w_dec.shape[0])
        miss, gather = mine.decode(w_dec) + found.error, batch.ranks.all_gather
        gradients, _ = sparse_row_gradients(
            batch.of_all_ranks(mine), gather(miss * scale), gather(batch.centred)
        )
    return total(miss.square().sum()) / variance, gradients


def _dead_code(pre: Float[Tensor, "n_dead B"], aux_k: int) -> Float[Tensor, "B n_dead"]:
    """Return each token's ``aux_k`` largest positive pre-activations, the others zero."""
    of_dead = pre.T.contiguous().relu_()
    if of_dead.shape[1] <= aux_k:
        return of_dead
    values, columns = of_dead.topk(aux_k, dim=1, sorted=False)
    return of_dead.zero_().scatter_(1, columns, values)
