"""What features add to a token, in raw units: the one place that knows how codes become vectors."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from vitscope.axes import Bool, Codes, Float, Int64, Rows
from vitscope.sae.model import SparseAutoencoder

CODES_AT_ONCE = 1 << 26
"""Codes of so many (token, feature) pairs are held at a time: 256 MB, whatever the dictionary."""


@dataclass(frozen=True, eq=False)
class ActiveEntries:
    """The non-zero entries of the codes of some tokens, n of them, by token.

    Attributes:
        tokens: row of each entry, ascending.
        features: feature of each entry.
        values: its activation.
        n_tokens: N.
        n_features: m.
    """

    tokens: Int64[Tensor, "n"]
    features: Int64[Tensor, "n"]
    values: Float[Tensor, "n"]
    n_tokens: int
    n_features: int


def encode_sparse(sae: SparseAutoencoder, rows: Rows) -> ActiveEntries:
    """Return the active entries of the codes of ``rows`` [N, d], of all features."""
    return active_entries(sae.encode(rows))


def active_entries(codes: Codes) -> ActiveEntries:
    """Return the non-zero entries of ``codes`` [N, m]."""
    token, feature = codes.nonzero(as_tuple=True)
    return ActiveEntries(token, feature, codes[token, feature], *codes.shape)


def contribution(
    sae: SparseAutoencoder, rows: Rows, active: ActiveEntries, members: Bool[Tensor, "m"]
) -> Rows:
    """Return Σ a_j·d_j over the features of ``members``, in the units of ``rows``, [N, d].

    Over all features this is the reconstruction without :func:`resting_point`.

    Args:
        sae: the dictionary.
        rows: the tokens that were encoded; an SAE that normalises each token rescales by them.
        active: their active entries.
        members: the group.
    """
    assert active.n_tokens == len(rows)
    chosen = members.to(active.features.device)[active.features]
    tokens = active.tokens[chosen]
    starts = torch.searchsorted(tokens, torch.arange(active.n_tokens, device=tokens.device))
    values = active.values[chosen] * sae.output_scale(rows)[tokens, 0]
    return embedding_bag(
        active.features[chosen], sae.w_dec, starts, mode="sum", per_sample_weights=values
    )


def resting_point(sae: SparseAutoencoder, rows: Rows) -> Rows:
    """Return the reconstruction of ``rows`` [N, d] when no feature is active: b_dec."""
    return sae.decode(rows.new_zeros(len(rows), sae.n_features), like=rows)


def rows_that_fit(n_rows: int, n_features: int) -> Iterator[slice]:
    """Yield slices of ``n_rows`` tokens whose dense codes fit ``CODES_AT_ONCE`` (one at least)."""
    step = max(CODES_AT_ONCE // n_features, 1)
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))
