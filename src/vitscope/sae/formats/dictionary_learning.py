"""dictionary_learning, and its fork sae-for-vlm: ``trainer_i/{ae.pt, config.json}``."""

import torch

from vitscope.errors import SaeError
from vitscope.sae.formats.folding import gated, of_scaled_input, scaled_rows
from vitscope.sae.formats.source import Format, Source, imported_sae, section
from vitscope.sae.model import AboveThresholds, Activation, SparseAutoencoder, TopK

RELU, NEW, GATED = "AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder"
TOP_K, BATCH_TOP_K, MATRYOSHKA = "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE"
JUMP = "JumpReluAutoEncoder"

_LINEAR, _MATRICES = ("encoder.weight", "decoder.weight"), ("W_enc", "W_dec")
CLASSES: dict[str, tuple[str, ...]] = {
    RELU: (*_LINEAR, "encoder.bias", "bias"),
    NEW: (*_LINEAR, "encoder.bias", "decoder.bias"),
    GATED: (*_LINEAR, "mag_bias", "decoder_bias", "gate_bias", "r_mag"),
    TOP_K: (*_LINEAR, "encoder.bias", "b_dec", "k", "threshold"),
    BATCH_TOP_K: (*_LINEAR, "encoder.bias", "b_dec", "k", "threshold"),
    MATRYOSHKA: (*_MATRICES, "b_enc", "b_dec", "group_sizes", "k", "threshold"),
    JUMP: (*_MATRICES, "b_enc", "b_dec", "threshold"),
}
"""Classes of the library, with the tensors each saves: encoder, decoder, the bias of each, others.
Linear layers are kept as [out, in], bare matrices as they multiply."""

TELLING = (RELU, NEW, GATED, MATRYOSHKA)
"""Classes that the names of the tensors alone give away."""


def _recognises(source: Source) -> bool:
    bare = not source.config and source.names == frozenset(CLASSES[TOP_K])
    return bare or "dict_class" in section(source.config, "trainer") or bool(_told(source))


def _read(source: Source) -> SparseAutoencoder:
    trainer = section(source.config, "trainer")
    kind = _kind(source)
    source.require_only(*CLASSES[kind])
    encoder, decoder, *biases = CLASSES[kind][:4]
    oriented = source.transposed if encoder in _LINEAR else source.tensor
    w_enc, w_dec = oriented(encoder), oriented(decoder)
    b_enc, b_dec = (source.tensor(name) for name in biases)
    activation: Activation | None = None
    threshold, caution = 0.0, list[str]()
    if kind == GATED:
        gate, factor = source.tensor("gate_bias"), source.tensor("r_mag")
        w_enc, activation = gated(w_enc, gate, factor, b_enc)
    elif kind == JUMP:
        activation = AboveThresholds(source.tensor("threshold").clamp_min(0))
    elif kind == TOP_K:
        activation = TopK()
    elif kind in (BATCH_TOP_K, MATRYOSHKA):
        threshold = float(source.tensor("threshold"))
        if threshold < 0:
            caution = ["its threshold was never set (it was saved early): it acts as a plain ReLU"]
    sae = imported_sae(
        source,
        f"dictionary_learning {kind}",
        w_enc=w_enc,
        b_enc=b_enc,
        w_dec=w_dec,
        b_dec=b_dec,
        activation=activation,
        threshold=max(0.0, threshold),
        k=int(source.checkpoint.tensors.get("k", torch.tensor(0))),
        centred=kind not in (NEW, JUMP),
        axes="encoder.weight is [m, d], decoder.weight [d, m]; W_enc [d, m], W_dec [m, d]",
        caution=caution,
        model=trainer.get("lm_name"),
        hook=trainer.get("submodule_name"),
    )
    sae = of_scaled_input(sae, _input_scale(source))
    # the library itself gives this class unit rows on loading, and codes to fit
    return scaled_rows(sae, sae.w_dec.norm(dim=1)) if kind == RELU else sae


def _input_scale(source: Source) -> float:
    """Return what the inputs were divided by, where it is not in the biases yet.

    The finished ``ae.pt`` has it folded in; a backup taken in training (``step``, ``ae``,
    ``optimizer`` …) keeps it beside the SAE.
    """
    if source.checkpoint.wrapper != "ae":
        return 1.0
    factor = source.checkpoint.values.get("norm_factor", 1.0)
    if not isinstance(factor, int | float) or not factor > 0:
        raise SaeError(f"{source.weights}: norm_factor is {factor!r}, not a positive number")
    return float(factor)


def _kind(source: Source) -> str:
    kind = section(source.config, "trainer").get("dict_class") or _told(source)
    if not kind:
        raise SaeError(
            f"{source.weights} may be {TOP_K} or {BATCH_TOP_K}, whose tensors have the same names; "
            "put the library's config.json beside it, which says which"
        )
    if kind not in CLASSES:
        raise SaeError(f"dict_class {kind!r} is not supported; supported: {', '.join(CLASSES)}")
    return str(kind)


def _told(source: Source) -> str:
    return next((kind for kind in TELLING if source.names == frozenset(CLASSES[kind])), "")


DICTIONARY_LEARNING = Format("dictionary_learning", _recognises, _read)
"""Told by the class in its configuration, or by the tensors' names."""
