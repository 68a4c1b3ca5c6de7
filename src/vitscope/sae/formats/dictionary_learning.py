"""dictionary_learning, and its fork sae-for-vlm: ``trainer_i/{ae.pt, config.json}``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from vitscope.errors import SaeError
from vitscope.sae.formats.folding import gated, scaled_rows, uncentred_bias
from vitscope.sae.formats.record import imported_info
from vitscope.sae.formats.source import Source
from vitscope.sae.model import AboveThreshold, AboveThresholds, Activation, SparseAutoencoder, TopK

NAME = "dictionary_learning"

RELU, NEW, GATED = "AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder"
TOP_K, BATCH_TOP_K, MATRYOSHKA = "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE"
JUMP = "JumpReluAutoEncoder"

_LINEAR = frozenset({"encoder.weight", "decoder.weight"})
_TOP_K = _LINEAR | {"encoder.bias", "b_dec", "k", "threshold"}
_MATRICES = frozenset({"W_enc", "W_dec", "b_enc", "b_dec"})
CLASSES = {
    RELU: _LINEAR | {"encoder.bias", "bias"},
    NEW: _LINEAR | {"encoder.bias", "decoder.bias"},
    GATED: _LINEAR | {"decoder_bias", "gate_bias", "mag_bias", "r_mag"},
    TOP_K: _TOP_K,
    BATCH_TOP_K: _TOP_K,
    MATRYOSHKA: _MATRICES | {"group_sizes", "k", "threshold"},
    JUMP: _MATRICES | {"threshold"},
}
"""Classes of the library, with the tensors each saves."""

TELLING = (RELU, NEW, GATED, MATRYOSHKA)
"""Classes that the names of the tensors alone give away."""


@dataclass(frozen=True)
class _Parts:
    """Weights under vitscope's names and axes, before anything is folded."""

    w_enc: Tensor
    b_enc: Tensor
    w_dec: Tensor
    b_dec: Tensor
    activation: Activation
    threshold: float = 0.0
    centred: bool = True


def recognises(source: Source) -> bool:
    """Tell whether this is one: by the class in its configuration, or by the tensors' names."""
    if "dict_class" in _trainer(source):
        return True
    return _by_names(source) is not None or (not source.config and source.names == _TOP_K)


def read(source: Source) -> SparseAutoencoder:
    """Read it.

    Raises:
        SaeError: a class that is unknown or does not have these tensors.
    """
    kind = _kind(source)
    source.require_only(*CLASSES[kind])
    parts = _linear(source, kind) if "encoder.weight" in source.names else _matrices(source, kind)
    caution: list[str] = []
    if kind in (BATCH_TOP_K, MATRYOSHKA) and float(source.tensor("threshold")) < 0:
        caution = ["its threshold was never set (it was saved early): it acts as a plain ReLU"]
    trainer = _trainer(source)
    b_enc = parts.b_enc
    if not parts.centred:
        b_enc = uncentred_bias(parts.w_enc, b_enc, parts.b_dec)
    scale = _input_scale(source)
    activation = parts.activation
    if isinstance(activation, AboveThresholds):
        activation = AboveThresholds(activation.thresholds * scale)
    sae = SparseAutoencoder(
        w_enc=parts.w_enc,
        b_enc=b_enc * scale,
        w_dec=parts.w_dec,
        b_dec=parts.b_dec * scale,
        threshold=parts.threshold * scale,
        k=int(source.stored.tensors.get("k", torch.tensor(0))),
        activation=activation,
        info=imported_info(
            source,
            f"{NAME} {kind}",
            assumed=[
                f"b_dec {'is' if parts.centred else 'is not'} subtracted before the encoder",
                "tokens are not normalised",
                "encoder.weight is [m, d], decoder.weight [d, m]; W_enc [d, m], W_dec [m, d]",
            ],
            caution=caution,
            model=trainer.get("lm_name"),
            hook=trainer.get("submodule_name"),
        ),
    )
    # the library itself gives this class unit rows on loading, and codes to fit
    return scaled_rows(sae, sae.w_dec.norm(dim=1)) if kind == RELU else sae


def _linear(source: Source, kind: str) -> _Parts:
    tensor = source.tensor
    w_enc, w_dec = source.transposed("encoder.weight"), source.transposed("decoder.weight")
    match kind:
        case "AutoEncoder":
            bias = tensor("encoder.bias")
            return _Parts(w_enc, bias, w_dec, tensor("bias"), AboveThreshold())
        case "AutoEncoderNew":
            bias, b_dec = tensor("encoder.bias"), tensor("decoder.bias")
            return _Parts(w_enc, bias, w_dec, b_dec, AboveThreshold(), centred=False)
        case "GatedAutoEncoder":
            bias = tensor("mag_bias")
            w_enc, thresholds = gated(w_enc, tensor("gate_bias"), tensor("r_mag"), bias)
            return _Parts(w_enc, bias, w_dec, tensor("decoder_bias"), thresholds)
        case "AutoEncoderTopK":
            return _Parts(w_enc, tensor("encoder.bias"), w_dec, tensor("b_dec"), TopK())
        case _:
            theta = max(0.0, float(tensor("threshold")))
            bias, b_dec = tensor("encoder.bias"), tensor("b_dec")
            return _Parts(w_enc, bias, w_dec, b_dec, AboveThreshold(), theta)


def _matrices(source: Source, kind: str) -> _Parts:
    w_enc, b_enc, w_dec, b_dec, theta = (
        source.tensor(name) for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
    )
    if kind == JUMP:
        thresholds = AboveThresholds(theta.clamp_min(0))
        return _Parts(w_enc, b_enc, w_dec, b_dec, thresholds, centred=False)
    return _Parts(w_enc, b_enc, w_dec, b_dec, AboveThreshold(), max(0.0, float(theta)))


def _input_scale(source: Source) -> float:
    """Return what the inputs were divided by, where it is not in the biases yet.

    The finished ``ae.pt`` has it folded in; a backup taken in training (``step``, ``ae``,
    ``optimizer`` …) keeps it beside the SAE.
    """
    if source.stored.wrapper != "ae":
        return 1.0
    factor = source.stored.values.get("norm_factor", 1.0)
    if not isinstance(factor, int | float) or not factor > 0:
        raise SaeError(f"{source.weights}: norm_factor is {factor!r}, not a positive number")
    return float(factor)


def _kind(source: Source) -> str:
    given = _trainer(source).get("dict_class")
    kind = given if given is not None else _by_names(source)
    if kind is None:
        raise SaeError(
            f"{source.weights} may be {TOP_K} or {BATCH_TOP_K}, whose tensors have the same names; "
            "put the library's config.json beside it, which says which"
        )
    if kind not in CLASSES:
        raise SaeError(f"dict_class {kind!r} is not supported; supported: {', '.join(CLASSES)}")
    return str(kind)


def _by_names(source: Source) -> str | None:
    found = [kind for kind in TELLING if source.names == CLASSES[kind]]
    return found[0] if found else None


def _trainer(source: Source) -> Mapping[str, Any]:
    trainer = source.config.get("trainer")
    return cast(dict[str, Any], trainer) if isinstance(trainer, dict) else {}
