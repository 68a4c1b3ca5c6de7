"""Kept entries in both orders: by feature for the gradients, by token for the reconstruction.

Sorting also undoes the chance order in which programs listed the entries: every sum after it is
made in the same order in every run.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitscope.axes import Float
from vitscope.sae.kernels.selection import Kept


@dataclass(frozen=True, eq=False)
class Entries:
    """Kept entries, n places of which the last may hold none; all whole numbers int32.

    Attributes:
        starts: place of each feature's first entry, and that after the last feature's.
        tokens: of each entry, by feature and then by token.
        values: of each entry, in that order.
        token_starts: place of each token's first entry in the other order, and the last's end.
        features_by_token: feature of each entry, by token and then by feature.
        values_by_token: in that order.
    """

    starts: Tensor
    tokens: Tensor
    values: Float[Tensor, "n"]
    token_starts: Tensor
    features_by_token: Tensor
    values_by_token: Float[Tensor, "n"]


class EntryOrder:
    """Sorts kept entries; holds the constants of it.

    Args:
        n_tokens: B.
        n_features: m.
        device: of all tensors.
    """

    def __init__(self, n_tokens: int, n_features: int, device: torch.device) -> None:
        self._n_tokens, self._n_features = n_tokens, n_features
        each = torch.arange(n_features + 1, device=device, dtype=torch.int32)
        self._feature_edges = each * n_tokens
        self._token_edges = torch.arange(n_tokens + 1, device=device, dtype=torch.int32)

    def of(self, kept: Kept) -> Entries:
        """Return the entries sorted; no place of ``kept`` is read later on."""
        positions, order = torch.sort(kept.positions)  # places without an entry come last
        values = kept.values[order]
        features = torch.div(positions, self._n_tokens, rounding_mode="floor")
        tokens = positions - features * self._n_tokens
        keys = torch.where(features < self._n_features, tokens, self._n_tokens)
        by_token, order = torch.sort(keys, stable=True)
        return Entries(
            starts=torch.searchsorted(positions, self._feature_edges, out_int32=True),
            tokens=tokens,
            values=values,
            token_starts=torch.searchsorted(by_token, self._token_edges, out_int32=True),
            features_by_token=features[order],
            values_by_token=values[order],
        )
