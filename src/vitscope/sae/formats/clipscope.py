"""clipscope: ``<layer>_resid/<n>.pt`` with ``pre_b``, ``enc``, ``dec`` and three numbers."""

import torch

from vitscope.sae.formats.source import Format, Source, imported_sae
from vitscope.sae.model import SparseAutoencoder, TopK

_TENSORS = frozenset({"pre_b", "enc", "dec"})


def _read(source: Source) -> SparseAutoencoder:
    values = source.checkpoint.values
    is_top_k = "k" in values
    dec = source.tensor("dec")
    return imported_sae(
        source,
        f"clipscope {'top-k' if is_top_k else 'ReLU'}",
        w_enc=source.tensor("enc"),
        b_enc=torch.zeros(dec.shape[0]),
        w_dec=dec,
        b_dec=source.tensor("pre_b"),
        activation=TopK(signed=True) if is_top_k else None,
        k=source.whole(values, "k") if is_top_k else 0,
        axes="enc is [d, m], dec is [m, d]",
        assumed=["b_dec is pre_b, added after the decoder"],
        caution=[
            "it was trained on standardised activations whose mean and deviation are not in "
            "the file: give them with a mapping.toml (docs/saes.md)"
        ],
    )


CLIPSCOPE = Format("clipscope", lambda source: source.names == _TENSORS, _read)
"""Told by the names of its tensors."""
