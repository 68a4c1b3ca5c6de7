"""sparsify (EleutherAI): ``<hookpoint>/{cfg.json, sae.safetensors}``."""

from vitscope.errors import SaeError
from vitscope.sae.formats.source import Format, Source, imported_sae, one_of
from vitscope.sae.model import GroupMax, SparseAutoencoder, TopK

_TENSORS = frozenset({"encoder.weight", "encoder.bias", "W_dec", "b_dec"})


def _read(source: Source) -> SparseAutoencoder:
    config = source.config
    source.refuse_transcoder(bool(config.get("transcode")) or "W_skip" in source.names)
    if config.get("signed"):
        raise SaeError(f"{source.weights} selects by magnitude (signed); that is not supported")
    source.require_only(*_TENSORS)
    kind = one_of(config, "activation", "topk", ("topk", "groupmax"))
    return imported_sae(
        source,
        f"sparsify {kind}",
        w_enc=source.transposed("encoder.weight"),
        b_enc=source.tensor("encoder.bias"),
        w_dec=source.tensor("W_dec"),
        b_dec=source.tensor("b_dec"),
        activation=TopK() if kind == "topk" else GroupMax(),
        k=source.whole(config, "k"),
        axes="encoder.weight and W_dec are both [m, d]",
        hook=source.weights.parent.name,
    )


SPARSIFY = Format("sparsify", lambda source: source.names >= _TENSORS - {"b_dec"}, _read)
"""A linear encoder beside a bare decoder matrix is its own."""
