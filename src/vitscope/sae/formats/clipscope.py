"""clipscope: ``<layer>_resid/<n>.pt`` with ``pre_b``, ``enc``, ``dec`` and three numbers."""

import torch

from vitscope.sae.formats.record import imported_info, whole
from vitscope.sae.formats.source import Source
from vitscope.sae.model import AboveThreshold, SparseAutoencoder, TopK

NAME = "clipscope"
TENSORS = frozenset({"pre_b", "enc", "dec"})


def recognises(source: Source) -> bool:
    """Tell whether this is one: by the names of its tensors."""
    return source.names == TENSORS


def read(source: Source) -> SparseAutoencoder:
    """Read it.

    Raises:
        SaeError: tensors that do not fit each other.
    """
    values = source.stored.values
    is_top_k = "k" in values
    dec = source.tensor("dec")
    return SparseAutoencoder(
        w_enc=source.tensor("enc"),
        b_enc=torch.zeros(dec.shape[0]),
        w_dec=dec,
        b_dec=source.tensor("pre_b"),
        threshold=0.0,
        k=whole(values, "k", source.weights) if is_top_k else 0,
        activation=TopK(signed=True) if is_top_k else AboveThreshold(),
        info=imported_info(
            source,
            f"{NAME} {'top-k' if is_top_k else 'ReLU'}",
            assumed=[
                "pre_b is subtracted before the encoder and added after the decoder",
                "tokens are not normalised",
                "enc is [d, m], dec is [m, d]",
            ],
            caution=[
                "it was trained on standardised activations whose mean and deviation are not in "
                "the file: give them with a mapping.toml (docs/saes.md)"
            ],
        ),
    )
