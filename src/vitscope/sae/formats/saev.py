"""saev: ``sae.pt``, a JSON line and then a state dict; every schema of that line."""

from collections.abc import Mapping
from typing import Any, cast

from vitscope.errors import SaeError
from vitscope.sae.formats.folding import uncentred_bias
from vitscope.sae.formats.record import imported_info, whole
from vitscope.sae.formats.source import Source
from vitscope.sae.model import AboveThreshold, Activation, SparseAutoencoder, TopK

NAME = "saev"
NEWEST_SCHEMA = 5
THETA = "activation.threshold"
TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec")


def recognises(source: Source) -> bool:
    """Tell whether this is one: by the JSON line before the tensors."""
    return source.stored.header is not None


def read(source: Source) -> SparseAutoencoder:
    """Read it.

    Raises:
        SaeError: a newer schema, or an activation that vitscope has no form for.
    """
    header = source.stored.header or {}
    schema = header.get("schema")
    if schema is not None and (not isinstance(schema, int) or not 1 <= schema <= NEWEST_SCHEMA):
        raise SaeError(
            f"{source.weights} has saev schema {schema!r}; known are 1 to {NEWEST_SCHEMA}, and none"
        )
    source.require_only(*TENSORS, THETA)
    kind, k = _activation(header, source)
    activation, threshold, reading = _selection(source, kind)
    w_enc, b_enc, w_dec, b_dec = (source.tensor(name) for name in TENSORS)
    # without a schema, that is before it had one, saev subtracted b_dec first; since, it does not
    centred = schema is None
    return SparseAutoencoder(
        w_enc=w_enc,
        b_enc=b_enc if centred else uncentred_bias(w_enc, b_enc, b_dec),
        w_dec=w_dec,
        b_dec=b_dec,
        threshold=threshold,
        k=k,
        activation=activation,
        info=imported_info(
            source,
            f"{NAME} {kind}, schema {schema or 'none'}",
            assumed=[
                f"b_dec {'is' if centred else 'is not'} subtracted before the encoder",
                "tokens are not normalised",
                "W_enc is [d, m], W_dec is [m, d]",
                reading,
            ],
        ),
    )


def _activation(header: Mapping[str, Any], source: Source) -> tuple[str, int]:
    """Return the class of the activation and its K, 0 where it has none."""
    config = header.get("cfg")
    config = cast(dict[str, Any], config) if isinstance(config, dict) else {}
    described = config.get("activation")
    if isinstance(described, dict):
        kind, params = str(described.get("cls")), described.get("params")
        values = cast(dict[str, Any], params) if isinstance(params, dict) else {}
    else:  # none at all, or schema 1 as it was first: the class beside the configuration
        kind, values = str(header.get("cls", "Relu")), config
        kind = "Relu" if kind == "SparseAutoencoderConfig" else kind
    if kind in ("TopK", "BatchTopK"):
        return kind, whole({"top_k": 32} | values, "top_k", source.weights)
    return kind, 0


def _selection(source: Source, kind: str) -> tuple[Activation, float, str]:
    """Return activation, θ, and what is to be said of it."""
    match kind:
        case "Relu":
            return AboveThreshold(), 0.0, "ReLU"
        case "TopK":
            return TopK(signed=True), 0.0, "top-k of every token, negative values included"
        case "BatchTopK" if THETA in source.names:
            theta = max(0.0, float(source.tensor(THETA)))
            return AboveThreshold(), theta, "values above the stored threshold"
        case "BatchTopK":
            # before it had a threshold, saev's BatchTopK took the top-k of every token
            return TopK(signed=True), 0.0, "BatchTopK without a threshold is top-k of every token"
        case _:
            raise SaeError(
                f"{source.weights} has activation {kind!r}, whose codes depend on the batch or are "
                "unknown; supported: Relu, TopK, BatchTopK"
            )
