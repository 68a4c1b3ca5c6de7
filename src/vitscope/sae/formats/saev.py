"""saev: ``sae.pt``, a JSON line and then a state dict; every schema of that line."""

from vitscope.errors import SaeError
from vitscope.sae.formats.source import Format, Source, imported_sae, section
from vitscope.sae.model import SparseAutoencoder, TopK

NEWEST_SCHEMA = 5
THETA = "activation.threshold"
_TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec")


def _read(source: Source) -> SparseAutoencoder:
    schema = (source.checkpoint.header or {}).get("schema")
    if schema is not None and (not isinstance(schema, int) or not 1 <= schema <= NEWEST_SCHEMA):
        raise SaeError(
            f"{source.weights} has saev schema {schema!r}; known are 1 to {NEWEST_SCHEMA}, and none"
        )
    source.require_only(*_TENSORS, THETA)
    kind, k = _activation(source)
    top_k, threshold = None, 0.0
    match kind:
        case "Relu":
            reading = "ReLU"
        case "TopK":
            top_k, reading = TopK(signed=True), "top-k of every token, negative values included"
        case "BatchTopK" if THETA in source.names:
            threshold, reading = float(source.tensor(THETA)), "values above the stored threshold"
        case "BatchTopK":
            # before it had a threshold, saev's BatchTopK took the top-k of every token
            top_k, reading = (
                TopK(signed=True),
                "BatchTopK without a threshold is top-k of every token",
            )
        case _:
            raise SaeError(
                f"{source.weights} has activation {kind!r}, whose codes depend on the batch or are "
                "unknown; supported: Relu, TopK, BatchTopK"
            )
    w_enc, b_enc, w_dec, b_dec = (source.tensor(name) for name in _TENSORS)
    return imported_sae(
        source,
        f"saev {kind}, schema {schema or 'none'}",
        w_enc=w_enc,
        b_enc=b_enc,
        w_dec=w_dec,
        b_dec=b_dec,
        activation=top_k,
        threshold=max(0.0, threshold),
        k=k,
        # without a schema, that is before it had one, saev subtracted b_dec first; since, it
        # does not
        centred=schema is None,
        assumed=[reading],
    )


def _activation(source: Source) -> tuple[str, int]:
    """Return the class of the activation and its K, 0 where it has none."""
    header = source.checkpoint.header or {}
    config = section(header, "cfg")
    described = section(config, "activation")
    if described:
        kind, values = str(described.get("cls")), section(described, "params")
    else:  # none at all, or schema 1 as it was first: the class beside the configuration
        kind, values = str(header.get("cls", "Relu")), config
        kind = "Relu" if kind == "SparseAutoencoderConfig" else kind
    if kind in ("TopK", "BatchTopK"):
        return kind, source.whole({"top_k": 32} | values, "top_k")
    return kind, 0


SAEV = Format("saev", lambda source: source.checkpoint.header is not None, _read)
"""Told by the JSON line before the tensors."""
