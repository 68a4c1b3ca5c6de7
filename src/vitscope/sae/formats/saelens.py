"""SAELens: ``cfg.json`` and ``sae_weights.safetensors``, of version 6 and before."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vitscope.errors import SaeError
from vitscope.sae.formats.folding import gated, scaled_rows, uncentred_bias
from vitscope.sae.formats.record import imported_info, one_of, whole
from vitscope.sae.formats.source import Source
from vitscope.sae.model import (
    AboveThreshold,
    AboveThresholds,
    Activation,
    ConstantNorm,
    LayerNorm,
    SparseAutoencoder,
    TokenNorm,
    TopK,
)

NAME = "SAELens"
FIRST_NESTED_VERSION = 6
"""From this version on, what is not the SAE itself is under ``metadata``."""

ARCHITECTURES = ("standard", "topk", "jumprelu", "gated")
NORMS: dict[str, TokenNorm | None] = {
    "none": None,
    "layer_norm": LayerNorm(),
    "constant_norm_rescale": ConstantNorm(),
    "expected_average_only_in": None,
    "covariance_whitening": None,
}
FOLDED_BEFORE = ("expected_average_only_in", "covariance_whitening")
"""SAELens applies these in training only and folds them when it saves."""


def recognises(source: Source) -> bool:
    """Tell whether this is a folder of SAELens: by its configuration."""
    config = source.config
    # ViT-Prisma, which grew out of it, has these fields too, and one of its own
    return {"d_in", "d_sae"} <= config.keys() and "layer_subtype" not in config


def read(source: Source) -> SparseAutoencoder:
    """Read it.

    Raises:
        SaeError: a transcoder, a training checkpoint, or options that vitscope has no form for.
    """
    config = _modern(source.config)
    architecture = _architecture(config)
    if config.get("reshape_activations") not in (None, "none"):
        raise SaeError(
            f"{source.weights}: the SAE reads attention heads (reshape_activations = "
            f"{config['reshape_activations']!r}); vitscope reads the residual stream alone"
        )
    norm = one_of(config, "normalize_activations", "none", tuple(NORMS))
    centred = bool(config.get("apply_b_dec_to_input", True))
    w_enc, b_enc, activation = _encoder(source, architecture)
    b_dec = source.tensor("b_dec")
    metadata: Mapping[str, Any] = config["metadata"]
    assumed = [
        f"b_dec {'is' if centred else 'is not'} subtracted before the encoder",
        f"tokens are normalised as {norm!r}"
        + (": folded into the weights by SAELens before" if norm in FOLDED_BEFORE else ""),
        "W_enc is [d, m], W_dec is [m, d]",
    ]
    sae = SparseAutoencoder(
        w_enc=w_enc,
        b_enc=b_enc if centred else uncentred_bias(w_enc, b_enc, b_dec),
        w_dec=_decoder(source),
        b_dec=b_dec,
        threshold=0.0,
        k=whole(config, "k", source.weights) if architecture == "topk" else 0,
        activation=activation,
        token_norm=NORMS[norm],
        info=imported_info(
            source,
            f"{NAME} {architecture}",
            assumed=assumed,
            model=metadata.get("model_name"),
            hook=metadata.get("hook_name"),
        ),
    )
    if architecture == "topk" and config.get("rescale_acts_by_decoder_norm"):
        return scaled_rows(sae, sae.w_dec.norm(dim=1))
    return sae


def _encoder(source: Source, architecture: str) -> tuple[Tensor, Tensor, Activation]:
    shared = ("W_enc", "W_dec", "b_dec")
    w_enc = source.tensor("W_enc")
    if architecture == "gated":
        source.require_only(*shared, "b_gate", "r_mag", "b_mag", "b_enc", "scaling_factor")
        parts = (source.tensor(name) for name in ("b_gate", "r_mag", "b_mag"))
        encoder, thresholds = gated(w_enc, *parts)
        return encoder, source.tensor("b_mag"), thresholds
    activation: Activation = AboveThreshold()
    if architecture == "topk":
        activation = TopK()
    own = ("b_enc", "scaling_factor")
    if architecture == "jumprelu":
        own = (*own, "threshold")
        # pre-activations are rectified too: a threshold below 0 acts as 0
        activation = AboveThresholds(source.tensor("threshold").clamp_min(0))
    source.require_only(*shared, *own)
    return w_enc, source.tensor("b_enc"), activation


def _decoder(source: Source) -> Tensor:
    """Return W_dec; before version 6 a factor per feature could stand between code and decoder."""
    w_dec = source.tensor("W_dec")
    factor = source.stored.tensors.get("scaling_factor")
    if factor is None or torch.equal(factor, torch.ones_like(factor)):
        return w_dec
    if not source.config.get("finetuning_scaling_factor"):
        raise SaeError(
            f"{source.weights} holds a scaling_factor that its cfg.json does not switch on; set "
            "finetuning_scaling_factor there, or remove the tensor"
        )
    return w_dec * factor[:, None]


def _architecture(config: Mapping[str, Any]) -> str:
    given = str(config.get("architecture", "standard"))
    if "transcoder" in given:
        raise SaeError(
            f"the file is a {given}: it predicts another place's activations, not its own, so its "
            "features have no reconstruction to be judged by; give an SAE"
        )
    if "batchtopk" in given:
        raise SaeError(
            f"architecture {given!r} is SAELens' training form; save it with its "
            "save_inference_model, which writes jumprelu"
        )
    activation = config.get("activation_fn", "relu")
    if given != "topk" and activation != "relu":
        raise SaeError(f"activation_fn = {activation!r} is not supported; supported: relu, topk")
    return one_of(config, "architecture", "standard", ARCHITECTURES)


def _modern(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration as version 6 writes it."""
    metadata = config.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    version = str(config.get("sae_lens_version") or metadata.get("sae_lens_version") or "0")
    major = version.split(".", maxsplit=1)[0]
    if major.isdecimal() and int(major) >= FIRST_NESTED_VERSION:
        return {**config, "metadata": metadata}
    renamed = {"hook_point": "hook_name", "activation_fn_str": "activation_fn"}
    old = {renamed.get(key, key): value for key, value in config.items()}
    old["metadata"] = old
    options = old.get("activation_fn_kwargs")
    k = options.get("k") if isinstance(options, dict) else None
    if old.get("activation_fn") == "topk" and k is not None:
        old |= {"architecture": "topk", "k": k}
    if isinstance(old.get("normalize_activations"), bool):
        old["normalize_activations"] = (
            "expected_average_only_in" if old["normalize_activations"] else "none"
        )
    if "hook_z" in str(old.get("hook_name", "")):
        old.setdefault("reshape_activations", "hook_z")
    return old
