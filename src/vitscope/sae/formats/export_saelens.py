"""An SAE as SAELens reads it: ``cfg.json`` and ``sae_weights.safetensors``."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from vitscope.errors import SaeError
from vitscope.sae.model import (
    LAYER_NORM_EPSILON,
    AboveThreshold,
    AboveThresholds,
    ConstantNorm,
    GroupMax,
    LayerNorm,
    SparseAutoencoder,
    TopK,
)
from vitscope.sae.storage import require_finite
from vitscope.store.atomic import atomic_path, write_json

FORMAT_VERSION = "6.0.0"
"""The version of SAELens whose configuration this is; later ones read it as their own."""

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"


def export_saelens(sae: SparseAutoencoder, folder: Path | str) -> list[Path]:
    """Write ``sae`` into ``folder`` for ``sae_lens.SAE.load_from_disk`` and return the files.

    A threshold becomes SAELens' ``jumprelu`` with it in every feature, per-token top-k its
    ``topk``. What was folded stays folded: raw activations in, the same codes and raw
    activations out.

    Raises:
        SaeError: an activation or normalisation that SAELens has no form for; NaN or infinity.
        ArtifactError: the folder cannot be written.
    """
    folder = Path(folder)
    architecture, options, tensors = _selection(sae)
    token_norm = _token_norm(sae)
    tensors |= {"W_enc": sae.w_enc, "b_enc": sae.b_enc, "W_dec": sae.w_dec, "b_dec": sae.b_dec}
    require_finite(tensors, folder)
    whole = {
        name: value.detach().float().cpu().contiguous() for name, value in sorted(tensors.items())
    }
    weights, config = folder / WEIGHTS, folder / CONFIG
    with atomic_path(weights) as temporary:
        save_file(whole, temporary)
    write_json(
        config,
        {
            "architecture": architecture,
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


def _selection(sae: SparseAutoencoder) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    match sae.activation:
        case AboveThreshold():
            return "jumprelu", {}, {"threshold": torch.full_like(sae.b_enc, sae.threshold)}
        case AboveThresholds(thresholds):
            return "jumprelu", {}, {"threshold": thresholds}
        case TopK(signed=False):
            return "topk", {"k": sae.k, "rescale_acts_by_decoder_norm": False}, {}
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
        "sae_lens_version": FORMAT_VERSION,
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
