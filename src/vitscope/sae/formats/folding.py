"""Exact rewriting of other parametrisations into vitscope's: the same codes, the same outputs.

Computed in float64, returned in the precision of what was given.
"""

from dataclasses import replace

import torch
from torch import Tensor

from vitscope.axes import Float
from vitscope.errors import SaeError
from vitscope.sae.model import AboveThreshold, AboveThresholds, SparseAutoencoder


def uncentred_bias(
    w_enc: Float[Tensor, "d m"], b_enc: Float[Tensor, "m"], b_dec: Float[Tensor, "d"]
) -> Float[Tensor, "m"]:
    """Return the bias of an encoder that subtracts b_dec, of one ``x @ w_enc + b_enc`` without.

    x·W + b = (x − b_dec)·W + (b + b_dec·W).

    Raises:
        SaeError: the shapes do not fit.
    """
    _require_one_each(w_enc, b_enc=b_enc)
    return (b_enc.double() + b_dec.double() @ w_enc.double()).to(b_enc.dtype)


def gated(
    w_enc: Float[Tensor, "d m"],
    b_gate: Float[Tensor, "m"],
    r_mag: Float[Tensor, "m"],
    b_mag: Float[Tensor, "m"],
) -> tuple[Float[Tensor, "d m"], AboveThresholds]:
    """Return encoder and thresholds of the JumpReLU SAE that a gated SAE is.

    With z = x·w_enc, its code is relu(e^r · z + b_mag) where z + b_gate > 0. The gate says
    e^r · z + b_mag > b_mag − e^r · b_gate: a threshold per feature, and 0 where that is negative.
    The bias of the JumpReLU SAE is ``b_mag`` as it is.

    Raises:
        SaeError: the shapes do not fit.
    """
    _require_one_each(w_enc, b_gate=b_gate, r_mag=r_mag, b_mag=b_mag)
    factor = r_mag.double().exp()
    thresholds = (b_mag.double() - factor * b_gate.double()).clamp_min(0).to(b_mag.dtype)
    return (w_enc.double() * factor).to(w_enc.dtype), AboveThresholds(thresholds)


def scaled_rows(sae: SparseAutoencoder, factor: Float[Tensor, "m"]) -> SparseAutoencoder:
    """Return the SAE whose codes are ``factor`` times as large and decoder rows as much smaller.

    With f > 0: f·relu(z) = relu(f·z), z > θ where f·z > f·θ, and (f·code)·(w_dec / f) is as before.

    The output is the same where a code does not depend on other features' codes; with top-k it is
    the one that selects on the scaled pre-activations.
    """
    wide = factor.double()
    activation = sae.activation
    if isinstance(activation, AboveThreshold) and sae.threshold > 0:
        activation = AboveThresholds(torch.full_like(factor, sae.threshold))
    if isinstance(activation, AboveThresholds):
        activation = AboveThresholds((activation.thresholds.double() * wide).to(sae.b_enc.dtype))
    return replace(
        sae,
        w_enc=(sae.w_enc.double() * wide).to(sae.w_enc.dtype),
        b_enc=(sae.b_enc.double() * wide).to(sae.b_enc.dtype),
        w_dec=(sae.w_dec.double() / wide[:, None]).to(sae.w_dec.dtype),
        threshold=0.0,
        activation=activation,
    )


def unit_rows(sae: SparseAutoencoder) -> SparseAutoencoder:
    """Return the same SAE with decoder rows of norm 1, so that codes of features compare.

    Raises:
        SaeError: a row is zero, or the selection would change (top-k on other magnitudes).
    """
    if not isinstance(sae.activation, AboveThreshold | AboveThresholds):
        raise SaeError(
            "decoder rows of a top-k SAE cannot be scaled to norm 1: it would select others"
        )
    norms = sae.w_dec.double().norm(dim=1)
    if not bool((norms > 0).all()):
        raise SaeError(f"{int((norms == 0).sum())} decoder rows are zero and have no direction")
    return scaled_rows(sae, norms)


def of_scaled_input(sae: SparseAutoencoder, scale: float) -> SparseAutoencoder:
    """Return the SAE on x of one that was trained on x / ``scale``, with codes in the units of x.

    Decoder rows keep their norms, so codes, biases and thresholds are ``scale`` times as large:
    scale·relu((x/scale − b_dec)·W + b_enc) = relu((x − scale·b_dec)·W + scale·b_enc).
    """
    activation = sae.activation
    if isinstance(activation, AboveThresholds):
        activation = AboveThresholds(activation.thresholds * scale)
    return replace(
        sae,
        b_enc=sae.b_enc * scale,
        b_dec=sae.b_dec * scale,
        threshold=sae.threshold * scale,
        activation=activation,
    )


def of_raw_input(
    sae: SparseAutoencoder, mean: Float[Tensor, "d"], deviation: Float[Tensor, "d"]
) -> SparseAutoencoder:
    """Return the SAE that does on x what ``sae`` does on (x − mean) / deviation, codes unchanged.

    With μ, σ: ((x − μ)/σ − b_dec)·W = (x − (μ + σ·b_dec))·(W / σ), row i of W over σᵢ; and back,
    σ·(codes·W_dec + b_dec) + μ = codes·(σ·W_dec) + (μ + σ·b_dec), column i of W_dec times σᵢ.

    Raises:
        SaeError: the SAE normalises tokens first (the two do not commute), the sizes are not d, or
            a deviation is not positive.
    """
    if sae.token_norm is not None:
        raise SaeError("an input mean or scale cannot be folded into an SAE that normalises tokens")
    for name, value in (("mean", mean), ("deviation", deviation)):
        if tuple(value.shape) != (sae.width,):
            raise SaeError(f"the input {name} has shape {list(value.shape)}, not [{sae.width}]")
    if not bool((deviation > 0).all()):
        raise SaeError("the input deviation must be positive in every dimension")
    wide = deviation.double()
    return replace(
        sae,
        w_enc=(sae.w_enc.double() / wide[:, None]).to(sae.w_enc.dtype),
        w_dec=(sae.w_dec.double() * wide).to(sae.w_dec.dtype),
        b_dec=(mean.double() + wide * sae.b_dec.double()).to(sae.b_dec.dtype),
    )


def _require_one_each(w_enc: Tensor, **vectors: Tensor) -> None:
    """Refuse what torch would broadcast in silence."""
    for name, vector in vectors.items():
        if vector.shape != w_enc.shape[1:]:
            raise SaeError(
                f"{name} has shape {list(vector.shape)}; with w_enc of shape {list(w_enc.shape)} "
                f"it must be {list(w_enc.shape[1:])}"
            )
