"""The training objective and its exact gradients, over the batch of all ranks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitscope.axes import Bool, Float, Int64, Rows
from vitscope.distributed import ALONE, Ranks
from vitscope.sae.auxiliary import Batch, auxiliary_term
from vitscope.sae.gated import reconstruct_gated
from vitscope.sae.kept_activations import KeptActivations
from vitscope.sae.losses import (
    Encoded,
    Reconstructed,
    reconstruct,
    reconstruct_nested,
    sum_of_squares,
)
from vitscope.sae.methods import (
    BATCH_TOPK,
    BatchTopK,
    JumpRelu,
    Matryoshka,
    Method,
    ReluL1,
    TokenTopK,
)
from vitscope.sae.parameters import Parameters
from vitscope.sae.row_gradients import RowGradients, SummedRowGradients
from vitscope.sae.sparse_code import SparseCode


@dataclass(frozen=True)
class Objective:
    """What is minimised.

    Attributes:
        k: K; B·K entries of the batch are kept. JumpReLU is pulled to it, ReLU has none.
        aux_k: dead features per token in the auxiliary loss.
        aux_coefficient: its weight.
        method: how codes become sparse.
    """

    k: int
    aux_k: int
    aux_coefficient: float
    method: Method = BATCH_TOPK


@dataclass(frozen=True, eq=False)
class Gradients:
    """Of every parameter; what belongs to a feature is made when a block of rows is asked for.

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
    kept: KeptActivations | None = None,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Return loss and gradients of a batch of normalised inputs.

    Ranks exchange their rows of the batch, of the error and of the code, not gradients: each then
    makes every gradient from the same numbers in the same order, as one process would.

    Args:
        parameters: the SAE in training, the same on every rank.
        x: this rank's rows ``[B, d]`` of the batch, after those of the lower ranks.
        objective: what is minimised.
        dead: which features are dead; None or none skips the auxiliary loss.
        kept: where pre-activations are written, so that no step allocates them anew.
        ranks: who holds the other rows.

    Raises:
        FloatingPointError: pre-activations contain NaN, on any rank.
    """
    if kept is None:
        kept = KeptActivations(x.shape[0], parameters.w_enc.shape[0], like=x)
    n_rows_of = ranks.gather(torch.tensor([x.shape[0]], device=x.device)).tolist()
    n_rows, first_row = sum(n_rows_of), sum(n_rows_of[: ranks.rank])
    centred = x - parameters.b_dec
    kept.encode(centred, parameters.w_enc, parameters.b_enc)
    batch = Encoded(x, centred, kept, parameters, n_rows, first_row, ranks)
    found = _reconstructed(batch, objective)
    auxiliary, more = x.new_zeros(()), None
    if dead is not None and objective.aux_coefficient > 0 and bool(dead.any()):
        variance = (found.errors - found.errors.mean(0)).square().sum()
        term = auxiliary_term(
            w_dec=parameters.w_dec,
            kept=kept,
            batch=Batch(-found.error, centred, variance, n_rows, first_row, ranks),
            dead=dead.nonzero().squeeze(1),
            aux_k=objective.aux_k,
            coefficient=objective.aux_coefficient,
        )
        auxiliary, more = term.loss, term.gradients
    return Evaluation(
        loss=found.loss,
        auxiliary=auxiliary,
        fvu=sum_of_squares(found.errors) / ranks.sum(sum_of_squares(x)),
        l0=found.n_active / n_rows,
        n_rows=n_rows,
        fired=found.fired,
        gradients=Gradients(
            rows=found.rows if more is None else SummedRowGradients(found.rows, more),
            output=found.output,
            log_threshold=found.log_threshold,
        ),
        code=found.code,
    )


def _reconstructed(batch: Encoded, objective: Objective) -> Reconstructed:
    kept, ranks, k = batch.kept, batch.ranks, objective.k
    method = objective.method
    if isinstance(method, TokenTopK | ReluL1 | JumpRelu) and int(
        ranks.sum(kept.holds_nan().long())
    ):
        raise FloatingPointError("pre-activations contain NaN")
    match method:
        case BatchTopK():
            return reconstruct(batch, kept.largest(batch.n_rows * k, ranks))
        case TokenTopK():
            return reconstruct(batch, kept.largest_of_each(k))
        case Matryoshka(ends):
            return reconstruct_nested(batch, kept.largest(batch.n_rows * k, ranks), ends)
        case ReluL1() | JumpRelu():
            return reconstruct_gated(batch, method, k)
