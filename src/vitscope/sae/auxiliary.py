"""The auxiliary loss: dead features learn to reconstruct what the live ones leave over."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitscope.axes import Float, Int64, Rows
from vitscope.sae.sparse_code import (
    SparseCode,
    WeightGradients,
    decode,
    value_gradients,
    weight_gradients,
)


@dataclass(frozen=True, eq=False)
class AuxiliaryTerm:
    """The loss before its coefficient, and the gradients of coefficient · loss."""

    loss: Float[Tensor, ""]
    gradients: WeightGradients


def auxiliary_term(
    *,
    w_dec: Float[Tensor, "m d"],
    pre: Float[Tensor, "B m"],
    residual: Rows,
    centred: Rows,
    dead: Int64[Tensor, "n_dead"],
    aux_k: int,
    coefficient: float,
) -> AuxiliaryTerm:
    """Return ``Σ‖r − r̂‖² / Σ‖r − mean r‖²`` and its gradients.

    r is the residual, a constant here; r̂ is its reconstruction by each token's ``aux_k`` largest
    positive pre-activations among the dead features. The gradient reaches decoder *and* encoder
    rows; that of ``b_dec`` follows from ``b_enc``'s.

    Args:
        w_dec: decoder.
        pre: pre-activations of all features.
        residual: x − x̂.
        centred: x − b_dec, what the encoder was multiplied with.
        dead: indices of the dead features, at least one.
        aux_k: dead features per token.
        coefficient: weight of the loss in the gradients.
    """
    code = dead_code(pre, dead, aux_k)
    miss = decode(code, w_dec) - residual
    # a batch with no residual variance has nothing to teach; the floor only prevents 0 / 0
    floor = torch.finfo(residual.dtype).tiny
    variance = (residual - residual.mean(0)).square().sum().clamp_min(floor)
    of_output = miss * (2 * coefficient / variance)
    of_values = value_gradients(code, w_dec, of_output)
    return AuxiliaryTerm(
        loss=miss.square().sum() / variance,
        gradients=weight_gradients(code, of_values, of_output, centred),
    )


def dead_code(pre: Float[Tensor, "B m"], dead: Int64[Tensor, "n_dead"], aux_k: int) -> SparseCode:
    """Return each token's ``aux_k`` largest positive pre-activations among the dead features."""
    of_dead = pre.index_select(1, dead)
    if dead.numel() > aux_k:
        values, column = of_dead.topk(aux_k, dim=1, sorted=False)
        features = dead[column]
    else:
        values, features = of_dead, dead.expand(pre.shape[0], -1)
    positive = values > 0
    rows = positive.nonzero()[:, 0]
    return SparseCode(rows, features[positive], values[positive], pre.shape[0], pre.shape[1])
