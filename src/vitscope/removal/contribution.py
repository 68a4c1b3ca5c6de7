"""What features add to a token, in raw units: the one place that knows how codes become vectors."""

from collections.abc import Iterator

from torch import Tensor

from vitscope.axes import Bool, Codes, Rows
from vitscope.sae.code import SparseCode
from vitscope.sae.model import SparseAutoencoder

CODES_AT_ONCE = 1 << 26
"""Codes of so many (token, feature) pairs are held at a time: 256 MB, whatever the dictionary."""


def encode_sparse(sae: SparseAutoencoder, rows: Rows) -> SparseCode:
    """Return the active entries of the codes of ``rows`` [N, d], of all features."""
    return SparseCode.from_dense(sae.encode(rows))


def active_entries(codes: Codes) -> SparseCode:
    """Return the non-zero entries of ``codes`` [N, m]."""
    return SparseCode.from_dense(codes)


def contribution(
    sae: SparseAutoencoder, rows: Rows, active: SparseCode, members: Bool[Tensor, "m"]
) -> Rows:
    """Return Σ a_j·d_j over the features of ``members``, in the units of ``rows``, [N, d].

    Over all features this is the reconstruction without :func:`resting_point`.

    Args:
        sae: the dictionary.
        rows: the tokens that were encoded; an SAE that normalises each token rescales by them.
        active: their active entries.
        members: the group.
    """
    assert active.n_rows == len(rows)
    chosen = active.take(members.to(active.features.device)[active.features])
    scale = sae.output_scale(rows)[chosen.rows, 0]
    return chosen.with_values(chosen.values * scale).decode(sae.w_dec)


def resting_point(sae: SparseAutoencoder, rows: Rows) -> Rows:
    """Return the reconstruction of ``rows`` [N, d] when no feature is active: b_dec."""
    return sae.decode(rows.new_zeros(len(rows), sae.n_features), like=rows)


def rows_that_fit(n_rows: int, n_features: int) -> Iterator[slice]:
    """Yield slices of ``n_rows`` tokens whose dense codes fit ``CODES_AT_ONCE`` (one at least)."""
    step = max(CODES_AT_ONCE // n_features, 1)
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))
