"""The auxiliary loss: dead features learn to reconstruct what the live ones leave over.

It reads the rows of the dead features from the kept buffer, so its cost grows with the number of
dead features, not with the dictionary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitscope.axes import Float, Int64, Rows
from vitscope.distributed import Ranks
from vitscope.sae.kept_activations import KeptActivations
from vitscope.sae.row_gradients import (
    Block,
    ChosenRowGradients,
    RowGradients,
    sparse_row_gradients,
)
from vitscope.sae.sparse_code import SparseCode, decode

DENSE_UP_TO = 16
"""With no more than this many dead features per one chosen, dense products over the dead features
are faster than sparse sums over the chosen entries."""


@dataclass(frozen=True, eq=False)
class AuxiliaryTerm:
    """The loss before its coefficient, and the gradients of coefficient · loss."""

    loss: Float[Tensor, ""]
    gradients: RowGradients


@dataclass(frozen=True, eq=False)
class Batch:
    """What the auxiliary loss sees of a batch, on one rank.

    Attributes:
        residual: x − x̂, a constant here.
        centred: x − b_dec, what the encoder was multiplied with.
        variance: Σ‖r − mean r‖² over all ranks.
        n_rows: rows of all ranks.
        first_row: rows of the lower ranks.
        ranks: who holds the others.
    """

    residual: Rows
    centred: Rows
    variance: Float[Tensor, ""]
    n_rows: int
    first_row: int
    ranks: Ranks


def auxiliary_term(
    *,
    w_dec: Float[Tensor, "m d"],
    kept: KeptActivations,
    batch: Batch,
    dead: Int64[Tensor, "n_dead"],
    aux_k: int,
    coefficient: float,
) -> AuxiliaryTerm:
    """Return ``Σ‖r − r̂‖² / Σ‖r − mean r‖²`` over all ranks, and its gradients.

    r̂ reconstructs the residual r by each token's ``aux_k`` largest positive pre-activations among
    the dead features. The gradient reaches decoder *and* encoder rows.

    Args:
        w_dec: decoder.
        kept: pre-activations of the batch.
        batch: the residual, and what else is needed of the batch.
        dead: indices of the dead features, ascending, at least one.
        aux_k: dead features per token.
        coefficient: weight of the loss in the gradients.
    """
    of_dead = dead_code(kept.of_features(dead), aux_k)
    # a batch with no residual variance has nothing to teach; the floor only prevents 0 / 0
    variance = batch.variance.clamp_min(torch.finfo(w_dec.dtype).tiny)
    scale = 2 * coefficient / variance
    if dead.numel() <= DENSE_UP_TO * aux_k:
        miss, gradients = _dense(of_dead, w_dec[dead], batch, dead, scale)
    else:
        miss, gradients = _sparse(of_dead, w_dec, batch, dead, scale)
    loss = batch.ranks.sum(miss.square().sum()) / variance
    return AuxiliaryTerm(loss, gradients)


def dead_code(pre: Float[Tensor, "n_dead B"], aux_k: int) -> Float[Tensor, "B n_dead"]:
    """Return each token's ``aux_k`` largest positive pre-activations, the others zero."""
    of_dead = pre.T.contiguous().relu_()
    if of_dead.shape[1] <= aux_k:
        return of_dead
    values, columns = of_dead.topk(aux_k, dim=1, sorted=False)
    return of_dead.zero_().scatter_(1, columns, values)


def _dense(
    of_dead: Float[Tensor, "B n_dead"],
    w_dec: Float[Tensor, "n_dead d"],
    batch: Batch,
    dead: Int64[Tensor, "n_dead"],
    scale: Float[Tensor, ""],
) -> tuple[Rows, RowGradients]:
    miss = torch.addmm(batch.residual, of_dead, w_dec, beta=-1)
    of_output = miss * scale
    of_values = (of_output @ w_dec.T).mul_(of_dead > 0)
    total = batch.ranks.sum
    gradients = Block(
        w_enc=total(of_values.T @ batch.centred),
        w_dec=total(of_dead.T @ of_output),
        b_enc=total(of_values.sum(0)),
        radial=total((of_values * of_dead).sum(0)),
    )
    return miss, ChosenRowGradients(dead, gradients)


def _sparse(
    of_dead: Float[Tensor, "B n_dead"],
    w_dec: Float[Tensor, "m d"],
    batch: Batch,
    dead: Int64[Tensor, "n_dead"],
    scale: Float[Tensor, ""],
) -> tuple[Rows, RowGradients]:
    rows, columns = of_dead.nonzero(as_tuple=True)
    values = of_dead[rows, columns]
    mine = SparseCode(rows, dead[columns], values, of_dead.shape[0], w_dec.shape[0])
    miss = decode(mine, w_dec) - batch.residual
    gather = batch.ranks.gather
    code = mine.gathered(batch.n_rows, batch.first_row, batch.ranks)
    gradients, _ = sparse_row_gradients(code, gather(miss * scale), gather(batch.centred))
    return miss, gradients
