"""The training objective and its exact gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitscope.axes import Bool, Float, Rows
from vitscope.sae.auxiliary import auxiliary_term
from vitscope.sae.parameters import Parameters
from vitscope.sae.selection import batch_top_k
from vitscope.sae.sparse_code import SparseCode, decode, value_gradients, weight_gradients


@dataclass(frozen=True)
class Objective:
    """What is minimised.

    Attributes:
        k: K; B·K entries of the batch are kept.
        aux_k: dead features per token in the auxiliary loss.
        aux_coefficient: its weight.
    """

    k: int
    aux_k: int
    aux_coefficient: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Loss and gradients of one batch.

    Attributes:
        loss: ``Σ‖x − x̂‖² / (B·d)``: near the FVU, since normalised inputs have mean squared
            norm d.
        auxiliary: the auxiliary loss before its coefficient; 0 where no feature is dead.
        fvu: ``Σ‖x − x̂‖² / Σ‖x‖²`` of this batch, about the data set's mean.
        code: the kept entries.
        gradients: of ``loss + aux_coefficient · auxiliary``.
    """

    loss: Float[Tensor, ""]
    auxiliary: Float[Tensor, ""]
    fvu: Float[Tensor, ""]
    code: SparseCode
    gradients: Parameters


def evaluate(
    parameters: Parameters,
    x: Rows,
    objective: Objective,
    *,
    dead: Bool[Tensor, "m"] | None = None,
    buffer: Float[Tensor, "B m"] | None = None,
) -> Evaluation:
    """Return loss and gradients of a batch of normalised inputs ``x`` ``[B, d]``.

    Args:
        parameters: the SAE in training.
        x: normalised inputs.
        objective: what is minimised.
        dead: which features are dead; None or none skips the auxiliary loss.
        buffer: where pre-activations are written, so that no step allocates them anew.

    Raises:
        FloatingPointError: pre-activations contain NaN.
    """
    centred = x - parameters.b_dec
    pre = torch.addmm(parameters.b_enc, centred, parameters.w_enc.T, out=buffer)
    code = batch_top_k(pre, x.shape[0] * objective.k)
    error = decode(code, parameters.w_dec).add_(parameters.b_dec).sub_(x)
    squared_error = error.square().sum()
    of_output = error * (2 / x.numel())
    of_values = value_gradients(code, parameters.w_dec, of_output)
    main = weight_gradients(code, of_values, of_output, centred)
    term = None
    if dead is not None and objective.aux_coefficient > 0 and bool(dead.any()):
        term = auxiliary_term(
            w_dec=parameters.w_dec,
            pre=pre,
            residual=-error,
            centred=centred,
            dead=dead.nonzero().squeeze(1),
            aux_k=objective.aux_k,
            coefficient=objective.aux_coefficient,
        )
    b_enc, w_enc, w_dec = main.b_enc, main.w_enc, main.w_dec
    if term is not None:
        b_enc.add_(term.gradients.b_enc)
        w_enc.add_(term.gradients.w_enc)
        w_dec.add_(term.gradients.w_dec)
    # b_dec acts twice: added to the output, and subtracted before the encoder
    b_dec = of_output.sum(0) - b_enc @ parameters.w_enc
    return Evaluation(
        loss=squared_error / x.numel(),
        auxiliary=squared_error.new_zeros(()) if term is None else term.loss,
        fvu=squared_error / x.square().sum(),
        code=code,
        gradients=Parameters(w_enc=w_enc, b_enc=b_enc, w_dec=w_dec, b_dec=b_dec),
    )
