"""SAELens: ``cfg.json`` and ``sae_weights.safetensors``, read (any version) and written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from vitscope.errors import SaeError
from vitscope.sae.formats.folding import gated, scaled_rows
from vitscope.sae.formats.source import Format, Source, imported_sae, one_of, section
from vitscope.sae.model import (
    LAYER_NORM_EPSILON,
    AboveThreshold,
    AboveThresholds,
    Activation,
    ConstantNorm,
    GroupMax,
    LayerNorm,
    SparseAutoencoder,
    TokenNorm,
    TopK,
)
from vitscope.sae.storage import require_finite
from vitscope.store.atomic import atomic_path, write_json

FIRST_NESTED_VERSION = 6
"""From this version on, what is not the SAE itself is under ``metadata``."""

WRITTEN_VERSION = "6.0.0"
"""The version of SAELens whose configuration is written; later ones read it as their own."""

ARCHITECTURES = ("standard", "topk", "jumprelu", "gated")
SAELENS_NORMS: dict[str, TokenNorm | None] = {
    "none": None,
    "layer_norm": LayerNorm(),
    "constant_norm_rescale": ConstantNorm(),
    "expected_average_only_in": None,
    "covariance_whitening": None,
}
FOLDED_BEFORE = ("expected_average_only_in", "covariance_whitening")
"""SAELens applies these in training only and folds them when it saves."""


def _recognises(source: Source) -> bool:
    # ViT-Prisma, which grew out of it, has these fields too, and one of its own
    return {"d_in", "d_sae"} <= source.config.keys() and "layer_subtype" not in source.config


def _read(source: Source) -> SparseAutoencoder:
    config = _modern(source.config)
    architecture = _architecture(config, source)
    if config.get("reshape_activations") not in (None, "none"):
        raise SaeError(
            f"{source.weights}: the SAE reads attention heads (reshape_activations = "
            f"{config['reshape_activations']!r}); vitscope reads the residual stream alone"
        )
    norm = one_of(config, "normalize_activations", "none", tuple(SAELENS_NORMS))
    w_enc, b_enc, activation = _encoder(source, architecture)
    folded = ": folded into the weights by SAELens before" if norm in FOLDED_BEFORE else ""
    sae = imported_sae(
        source,
        f"SAELens {architecture}",
        w_enc=w_enc,
        b_enc=b_enc,
        w_dec=_decoder(source),
        b_dec=source.tensor("b_dec"),
        k=source.whole(config, "k") if architecture == "topk" else 0,
        activation=activation,
        token_norm=SAELENS_NORMS[norm],
        centred=bool(config.get("apply_b_dec_to_input", True)),
        normalised=f"tokens are normalised as {norm!r}{folded}",
        model=config["metadata"].get("model_name"),
        hook=config["metadata"].get("hook_name"),
    )
    if architecture == "topk" and config.get("rescale_acts_by_decoder_norm"):
        return scaled_rows(sae, sae.w_dec.norm(dim=1))
    return sae


def _encoder(source: Source, architecture: str) -> tuple[Tensor, Tensor, Activation | None]:
    own = {"jumprelu": ("threshold",), "gated": ("b_gate", "r_mag", "b_mag")}.get(architecture, ())
    source.require_only("W_enc", "W_dec", "b_dec", "b_enc", "scaling_factor", *own)
    w_enc = source.tensor("W_enc")
    match architecture:
        case "gated":
            w_enc, thresholds = gated(w_enc, *(source.tensor(name) for name in own))
            return w_enc, source.tensor("b_mag"), thresholds
        case "jumprelu":
            # pre-activations are rectified too: a threshold below 0 acts as 0
            activation = AboveThresholds(source.tensor("threshold").clamp_min(0))
        case _:
            activation = TopK() if architecture == "topk" else None
    return w_enc, source.tensor("b_enc"), activation


def _decoder(source: Source) -> Tensor:
    """Return W_dec; before version 6 a factor per feature could stand between code and decoder."""
    w_dec = source.tensor("W_dec")
    factor = source.checkpoint.tensors.get("scaling_factor")
    if factor is None or torch.equal(factor, torch.ones_like(factor)):
        return w_dec
    if not source.config.get("finetuning_scaling_factor"):
        raise SaeError(
            f"{source.weights} holds a scaling_factor that its cfg.json does not switch on; set "
            "finetuning_scaling_factor there, or remove the tensor"
        )
    return w_dec * factor[:, None]


def _architecture(config: Mapping[str, Any], source: Source) -> str:
    given = str(config.get("architecture", "standard"))
    source.refuse_transcoder("transcoder" in given)
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
    metadata = section(config, "metadata")
    version = str(config.get("sae_lens_version") or metadata.get("sae_lens_version") or "0")
    major = version.split(".", maxsplit=1)[0]
    if major.isdecimal() and int(major) >= FIRST_NESTED_VERSION:
        return {**config, "metadata": metadata}
    renamed = {"hook_point": "hook_name", "activation_fn_str": "activation_fn"}
    old = {renamed.get(key, key): value for key, value in config.items()}
    old["metadata"] = old
    k = section(old, "activation_fn_kwargs").get("k")
    if old.get("activation_fn") == "topk" and k is not None:
        old |= {"architecture": "topk", "k": k}
    if isinstance(old.get("normalize_activations"), bool):
        old["normalize_activations"] = (
            "expected_average_only_in" if old["normalize_activations"] else "none"
        )
    if "hook_z" in str(old.get("hook_name", "")):
        old.setdefault("reshape_activations", "hook_z")
    return old


SAELENS = Format("SAELens", _recognises, _read)
"""Told by its configuration."""


def export_saelens(sae: SparseAutoencoder, folder: Path | str) -> list[Path]:
    """Write ``sae`` into ``folder`` for ``sae_lens.SAE.load_from_disk`` and return the files.

    A threshold becomes SAELens' ``jumprelu`` with it in every feature, per-token top-k its
    ``topk``. What was folded stays folded: raw activations in, the same codes and raw
    activations out.

    Raises:
        SaeError: an activation or normalisation that SAELens has no form for; NaN or infinity.
        ArtifactError: the folder cannot be written.
    """
    weights, config = Path(folder) / "sae_weights.safetensors", Path(folder) / "cfg.json"
    options, tensors = _selection(sae)
    token_norm = _token_norm(sae)
    tensors |= {"W_enc": sae.w_enc, "b_enc": sae.b_enc, "W_dec": sae.w_dec, "b_dec": sae.b_dec}
    require_finite(tensors, Path(folder))
    with atomic_path(weights) as temporary:
        whole = {name: value.detach().float().cpu().contiguous() for name, value in tensors.items()}
        save_file(dict(sorted(whole.items())), temporary)
    write_json(
        config,
        {
            "d_in": sae.width,
            "d_sae": sae.n_features,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": token_norm,
            "reshape_activations": "none",
            **options,
            "metadata": _metadata(sae),
        },
    )
    return [weights, config]


def _selection(sae: SparseAutoencoder) -> tuple[dict[str, Any], dict[str, Tensor]]:
    match sae.activation:
        case AboveThreshold():
            theta = torch.full_like(sae.b_enc, sae.threshold)
            return {"architecture": "jumprelu"}, {"threshold": theta}
        case AboveThresholds(thresholds):
            return {"architecture": "jumprelu"}, {"threshold": thresholds}
        case TopK(signed=False):
            options = {"k": sae.k, "rescale_acts_by_decoder_norm": False}
            return {"architecture": "topk", **options}, {}
        case TopK():
            raise SaeError(
                "SAELens rectifies before it selects: it has no form for a top-k that keeps "
                "negative values"
            )
        case GroupMax():
            raise SaeError("SAELens has no form for one feature of every group (groupmax)")


def _token_norm(sae: SparseAutoencoder) -> str:
    match sae.token_norm:
        case None:
            return "none"
        case ConstantNorm():
            return "constant_norm_rescale"
        case LayerNorm(epsilon):
            if epsilon != LAYER_NORM_EPSILON:
                raise SaeError(f"SAELens' layer norm has ε = {LAYER_NORM_EPSILON}, not {epsilon}")
            return "layer_norm"


def _metadata(sae: SparseAutoencoder) -> dict[str, Any]:
    """Return what SAELens keeps beside the SAE; it takes any further keys along."""
    site = sae.site
    told: dict[str, Any] = {
        "sae_lens_version": WRITTEN_VERSION,
        "sae_lens_training_version": None,
        "made_with": "vitscope",
        "k": sae.k,
        "vitscope_info": sae.info,
    }
    if site is None:
        return told
    return told | {
        "model_name": site.model,
        # the output of block L, counted from 1, is that of block L − 1, counted from 0
        "hook_name": f"blocks.{site.layer - 1}.hook_resid_post",
        "weights": site.weights,
        "tokens": "patch tokens alone, no CLS, no registers",
        "grid": site.grid,
        "patch": site.patch,
    }
