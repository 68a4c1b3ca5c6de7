"""sparsify (EleutherAI): ``<hookpoint>/{cfg.json, sae.safetensors}``."""

from vitscope.errors import SaeError
from vitscope.sae.formats.record import imported_info, one_of, whole
from vitscope.sae.formats.source import Source
from vitscope.sae.model import GroupMax, SparseAutoencoder, TopK

NAME = "sparsify"
TENSORS = frozenset({"encoder.weight", "encoder.bias", "W_dec", "b_dec"})


def recognises(source: Source) -> bool:
    """Tell whether this is one: a linear encoder beside a bare decoder matrix is its own."""
    return source.names >= TENSORS - {"b_dec"}


def read(source: Source) -> SparseAutoencoder:
    """Read it.

    Raises:
        SaeError: a transcoder, or options that vitscope has no form for.
    """
    config = source.config
    if config.get("transcode") or "W_skip" in source.names:
        raise SaeError(
            f"{source.weights} is a transcoder: it predicts another place's activations, not its "
            "own, so its features have no reconstruction to be judged by; give an SAE"
        )
    if config.get("signed"):
        raise SaeError(f"{source.weights} selects by magnitude (signed); that is not supported")
    source.require_only(*TENSORS)
    kind = one_of(config, "activation", "topk", ("topk", "groupmax"))
    return SparseAutoencoder(
        w_enc=source.transposed("encoder.weight"),
        b_enc=source.tensor("encoder.bias"),
        w_dec=source.tensor("W_dec"),
        b_dec=source.tensor("b_dec"),
        threshold=0.0,
        k=whole(config, "k", source.weights),
        activation=TopK() if kind == "topk" else GroupMax(),
        info=imported_info(
            source,
            f"{NAME} {kind}",
            assumed=[
                "b_dec is subtracted before the encoder",
                "tokens are not normalised",
                "encoder.weight and W_dec are both [m, d]",
            ],
            hook=source.weights.parent.name,
        ),
    )
