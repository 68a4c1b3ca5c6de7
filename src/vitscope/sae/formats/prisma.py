"""ViT-Prisma: a state dict (``weights.pt``, ``n_images_*.pt``) and ``config.json``."""

from typing import Any

from vitscope.errors import SaeError
from vitscope.sae.formats.folding import gated
from vitscope.sae.formats.source import Format, Source, imported_sae, one_of, section
from vitscope.sae.model import ConstantNorm, LayerNorm, SparseAutoencoder, TokenNorm, TopK

SHARED = ("W_enc", "W_dec", "b_dec", "b_enc")
GATES = ("b_gate", "r_mag", "b_mag")
PRISMA_NORMS: dict[str, TokenNorm | None] = {
    "none": None,
    "layer_norm": LayerNorm(),
    "constant_norm_rescale": ConstantNorm(),
}


def _read(source: Source) -> SparseAutoencoder:
    config, tensor = source.config, source.tensor
    source.refuse_transcoder(
        bool(config.get("is_transcoder") or source.names & {"W_skip", "b_dec_out"})
    )
    kind = one_of(config, "architecture", "standard", ("standard", "gated"))
    source.require_only(*SHARED, *(GATES if kind == "gated" else ()))
    # absent from a configuration, these have the defaults of the library
    norm = one_of(config, "normalize_activations", "layer_norm", tuple(PRISMA_NORMS))
    function = one_of(config, "activation_fn_str", "relu", ("relu", "topk"))
    parts: dict[str, Any] = {"w_enc": tensor("W_enc")}
    if kind == "gated":
        if function != "relu":
            raise SaeError(f"{source.weights} is gated with {function}; only relu is supported")
        w_enc, thresholds = gated(parts["w_enc"], *(tensor(name) for name in GATES))
        parts |= {"w_enc": w_enc, "b_enc": tensor("b_mag"), "activation": thresholds}
    else:
        parts["b_enc"] = tensor("b_enc")
        if function == "topk":
            options = section(config, "activation_fn_kwargs")
            parts |= {"activation": TopK(), "k": source.whole(options, "k")}
    caution: list[str] = []
    if config.get("cls_token_only"):
        caution = ["it was trained on CLS tokens alone; vitscope gives it patch tokens"]
    elif not config.get("use_patches_only"):
        caution = ["it was trained on CLS and patch tokens together"]
    return imported_sae(
        source,
        f"ViT-Prisma {kind}",
        **parts,
        w_dec=tensor("W_dec"),
        b_dec=tensor("b_dec"),
        token_norm=PRISMA_NORMS[norm],
        normalised=f"tokens are normalised as {norm!r}",
        caution=caution,
        model=config.get("model_name"),
        hook=f"blocks.{config['hook_point_layer']}.{config['layer_subtype']}",
    )


PRISMA = Format(
    "ViT-Prisma",
    lambda source: {"hook_point_layer", "layer_subtype"} <= source.config.keys(),
    _read,
)
"""Told by the words of its configuration."""
