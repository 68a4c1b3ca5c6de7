"""How much each feature contributes and how often it fires: what controls are matched on."""

import torch
from torch import Tensor

from vitscope.axes import Float64
from vitscope.sae.code import SparseCode
from vitscope.sae.model import SparseAutoencoder


class ContributionSums:
    """Per-feature sums over tokens, for any order and split of the tokens.

    Attributes:
        n_tokens: tokens counted.
        count: tokens on which each feature is active, [m].
        squares: Σ a² of each feature, [m].
    """

    def __init__(self, n_features: int) -> None:
        self.n_tokens = 0
        self.count = torch.zeros(n_features, dtype=torch.int64)
        self.squares = torch.zeros(n_features, dtype=torch.float64)

    def update(self, active: SparseCode) -> None:
        """Count the tokens of ``active``."""
        features, values = active.features.cpu(), active.values.detach().cpu().double()
        self.n_tokens += active.n_rows
        self.count += torch.bincount(features, minlength=active.n_features)
        self.squares.index_add_(0, features, values**2)

    def merge(self, other: "ContributionSums") -> None:
        """Take in the tokens that ``other`` has counted."""
        self.n_tokens += other.n_tokens
        self.count += other.count
        self.squares += other.squares

    def energy(self, sae: SparseAutoencoder) -> Float64[Tensor, "m"]:
        """Return Σ a²·‖d‖² of each feature per token counted."""
        norms = sae.w_dec.detach().cpu().double().square().sum(1)
        return self.squares * norms / max(self.n_tokens, 1)

    def rate(self) -> Float64[Tensor, "m"]:
        """Return the share of tokens on which each feature is active."""
        return self.count.double() / max(self.n_tokens, 1)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the sums by name, for the disk."""
        return {
            "contribution.n_tokens": torch.tensor(self.n_tokens),
            "contribution.count": self.count.clone(),
            "contribution.squares": self.squares.clone(),
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "ContributionSums":
        """Return what :meth:`to_tensors` was called on; other names are ignored."""
        restored = cls(tensors["contribution.count"].numel())
        restored.n_tokens = int(tensors["contribution.n_tokens"])
        restored.count = tensors["contribution.count"].clone()
        restored.squares = tensors["contribution.squares"].clone()
        return restored
