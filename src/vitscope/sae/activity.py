"""How often and how strongly each feature fires, on outlier tokens and on normal ones."""

import torch
from torch import Tensor

from vitscope.axes import Bool, Codes, Float64, Int64

KINDS = ("normal", "outlier")


class FeatureActivity:
    """Per-feature sums over tokens, kept apart by kind, for any order and split of the tokens.

    Means over no token, or over no firing, are NaN; the maximum of a feature that never fired
    is 0.

    Attributes:
        n_tokens: tokens counted, by kind.
        count: ``[m]`` by kind: tokens on which the feature is active.
        total: ``[m]`` by kind: sum of its activations.
        maximum: ``[m]``: its largest activation on any token.
    """

    def __init__(self, n_features: int) -> None:
        self.n_tokens = {str(kind): 0 for kind in KINDS}
        self.count = {str(kind): _zeros(n_features, torch.int64) for kind in KINDS}
        self.total = {str(kind): _zeros(n_features, torch.float64) for kind in KINDS}
        self.maximum = _zeros(n_features, torch.float64)

    @property
    def n_features(self) -> int:
        """m."""
        return self.maximum.numel()

    def update(self, codes: Codes, outlier_mask: Bool[Tensor, "N"]) -> None:
        """Count tokens with ``codes`` ``[N, m]``; only the non-zero entries are widened."""
        rows, features = (codes > 0).nonzero(as_tuple=True)
        values = codes.detach()[rows, features].double().cpu()
        is_outlier, features = outlier_mask[rows].cpu(), features.cpu()
        n_outliers = int(outlier_mask.sum())
        for kind, mask, n in (
            ("normal", ~is_outlier, codes.shape[0] - n_outliers),
            ("outlier", is_outlier, n_outliers),
        ):
            self.n_tokens[kind] += n
            self.count[kind] += torch.bincount(features[mask], minlength=self.n_features)
            self.total[kind].index_add_(0, features[mask], values[mask])
        self.maximum.scatter_reduce_(0, features, values, "amax")

    def merge(self, other: "FeatureActivity") -> None:
        """Take in the tokens that ``other`` has counted."""
        for kind in KINDS:
            self.n_tokens[kind] += other.n_tokens[kind]
            self.count[kind] += other.count[kind]
            self.total[kind] += other.total[kind]
        self.maximum = torch.maximum(self.maximum, other.maximum)

    def density(self) -> Float64[Tensor, "m"]:
        """Share of all tokens on which each feature is active."""
        return self._fires().double() / sum(self.n_tokens.values())

    def density_on(self, kind: str) -> Float64[Tensor, "m"]:
        """Share of the ``normal`` or ``outlier`` tokens on which each feature is active."""
        return self.count[kind].double() / self.n_tokens[kind]

    def mean_active(self) -> Float64[Tensor, "m"]:
        """Mean activation over the tokens on which each feature is active."""
        return (self.total["normal"] + self.total["outlier"]) / self._fires()

    def mean_on(self, kind: str) -> Float64[Tensor, "m"]:
        """Mean activation over all ``normal`` or ``outlier`` tokens, silent ones included."""
        return self.total[kind] / self.n_tokens[kind]

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the sums by name, for the disk."""
        tensors = {"activity.maximum": self.maximum.clone()}
        for kind in KINDS:
            tensors[f"activity.{kind}.n_tokens"] = torch.tensor(self.n_tokens[kind])
            tensors[f"activity.{kind}.count"] = self.count[kind].clone()
            tensors[f"activity.{kind}.total"] = self.total[kind].clone()
        return tensors

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "FeatureActivity":
        """Return what :meth:`to_tensors` was called on; other names are ignored."""
        restored = cls(tensors["activity.maximum"].numel())
        restored.maximum = tensors["activity.maximum"].clone()
        for kind in KINDS:
            restored.n_tokens[kind] = int(tensors[f"activity.{kind}.n_tokens"])
            restored.count[kind] = tensors[f"activity.{kind}.count"].clone()
            restored.total[kind] = tensors[f"activity.{kind}.total"].clone()
        return restored

    def _fires(self) -> Int64[Tensor, "m"]:
        return self.count["normal"] + self.count["outlier"]


def _zeros(n: int, dtype: torch.dtype) -> Tensor:
    return torch.zeros(n, dtype=dtype)
