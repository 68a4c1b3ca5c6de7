"""ViT-Prisma: a state dict (``weights.pt``, ``n_images_*.pt``) and ``config.json``."""

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from vitscope.errors import SaeError
from vitscope.sae.formats.folding import gated
from vitscope.sae.formats.record import imported_info, one_of, whole
from vitscope.sae.formats.source import Source
from vitscope.sae.model import (
    AboveThreshold,
    Activation,
    ConstantNorm,
    LayerNorm,
    SparseAutoencoder,
    TokenNorm,
    TopK,
)

NAME = "ViT-Prisma"
NORMS: dict[str, TokenNorm | None] = {
    "none": None,
    "layer_norm": LayerNorm(),
    "constant_norm_rescale": ConstantNorm(),
}
SHARED = ("W_enc", "W_dec", "b_dec", "b_enc")
GATES = ("b_gate", "r_mag", "b_mag")


def recognises(source: Source) -> bool:
    """Tell whether this is one: by the words of its configuration."""
    return {"hook_point_layer", "layer_subtype"} <= source.config.keys()


def read(source: Source) -> SparseAutoencoder:
    """Read it.

    Raises:
        SaeError: a transcoder, or options that vitscope has no form for.
    """
    config = source.config
    if config.get("is_transcoder") or source.names & {"W_skip", "b_dec_out"}:
        raise SaeError(
            f"{source.weights} is a transcoder: it predicts another place's activations, not its "
            "own, so its features have no reconstruction to be judged by; give an SAE"
        )
    kind = one_of(config, "architecture", "standard", ("standard", "gated"))
    source.require_only(*SHARED, *(GATES if kind == "gated" else ()))
    # absent from a configuration, these have the defaults of the library
    norm = one_of(config, "normalize_activations", "layer_norm", tuple(NORMS))
    w_enc, b_enc, activation, k = _encoder(source, kind)
    return SparseAutoencoder(
        w_enc=w_enc,
        b_enc=b_enc,
        w_dec=source.tensor("W_dec"),
        b_dec=source.tensor("b_dec"),
        threshold=0.0,
        k=k,
        activation=activation,
        token_norm=NORMS[norm],
        info=imported_info(
            source,
            f"{NAME} {kind}",
            assumed=[
                "b_dec is subtracted before the encoder",
                f"tokens are normalised as {norm!r}",
                "W_enc is [d, m], W_dec is [m, d]",
            ],
            caution=_cautions(config),
            model=config.get("model_name"),
            hook=f"blocks.{config['hook_point_layer']}.{config['layer_subtype']}",
        ),
    )


def _encoder(source: Source, kind: str) -> tuple[Tensor, Tensor, Activation, int]:
    function = one_of(source.config, "activation_fn_str", "relu", ("relu", "topk"))
    if kind == "gated":
        if function != "relu":
            raise SaeError(f"{source.weights} is gated with {function}; only relu is supported")
        bias = source.tensor("b_mag")
        parts = (source.tensor(name) for name in GATES)
        w_enc, thresholds = gated(source.tensor("W_enc"), *parts)
        return w_enc, bias, thresholds, 0
    w_enc, b_enc = source.tensor("W_enc"), source.tensor("b_enc")
    if function == "relu":
        return w_enc, b_enc, AboveThreshold(), 0
    options = source.config.get("activation_fn_kwargs")
    values = cast(dict[str, Any], options) if isinstance(options, dict) else {}
    return w_enc, b_enc, TopK(), whole(values, "k", source.weights)


def _cautions(config: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    if config.get("cls_token_only"):
        found.append("it was trained on CLS tokens alone; vitscope gives it patch tokens")
    if not config.get("use_patches_only") and not config.get("cls_token_only"):
        found.append("it was trained on CLS and patch tokens together")
    return found
