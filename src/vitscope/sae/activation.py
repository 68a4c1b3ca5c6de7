"""How pre-activations become codes: the variants that published SAEs use."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vitscope.axes import Codes, Float, Int64
from vitscope.errors import SaeError


@dataclass(frozen=True)
class AboveThreshold:
    """Everything above the SAE's one scalar θ; θ = 0 is the plain ReLU.

    This is what a BatchTopK SAE does outside training.
    """


@dataclass(frozen=True, eq=False)
class AboveThresholds:
    """JumpReLU: everything above the feature's own θ. A gated SAE is one too, after folding.

    Attributes:
        thresholds: θ per feature, none below 0.

    Raises:
        SaeError: one is negative or not finite.
    """

    thresholds: Float[Tensor, "m"]

    def __post_init__(self) -> None:
        # what lies on an accelerator was checked before it went there: looking again would wait
        if self.thresholds.is_cpu and not bool(
            ((self.thresholds >= 0) & self.thresholds.isfinite()).all()
        ):
            raise SaeError("thresholds must be finite and not negative")


@dataclass(frozen=True)
class TopK:
    """The K largest of every token, with the SAE's own K.

    Attributes:
        signed: keep a negative pre-activation that is among the K largest, as some libraries do;
            otherwise it counts as 0.
    """

    signed: bool = False


@dataclass(frozen=True)
class GroupMax:
    """The largest of each of K equal groups of neighbouring features, with the SAE's own K."""


Activation = AboveThreshold | AboveThresholds | TopK | GroupMax

ABOVE_THRESHOLD = AboveThreshold()
"""The default."""


def check_activation(activation: Activation, k: int, n_features: int) -> None:
    """Refuse an activation that cannot be that of a dictionary of ``n_features``.

    Raises:
        SaeError: K is out of range or does not divide m; there is not one θ a feature.
    """
    match activation:
        case AboveThreshold():
            return
        case AboveThresholds(thresholds):
            if tuple(thresholds.shape) != (n_features,):
                raise SaeError(
                    f"thresholds has shape {list(thresholds.shape)}; with {n_features} features it "
                    f"must be [{n_features}]"
                )
        case TopK() | GroupMax():
            if not 1 <= k <= n_features:
                raise SaeError(f"k is {k}; with {n_features} features it must be 1 to {n_features}")
            if isinstance(activation, GroupMax) and n_features % k:
                raise SaeError(f"{n_features} features cannot be cut into k = {k} equal groups")


def looks_at_all(activation: Activation) -> bool:
    """Tell whether one feature's code depends on the other features of its token."""
    return isinstance(activation, TopK | GroupMax)


def activate(activation: Activation, pre: Codes, *, threshold: float, k: int) -> Codes:
    """Return the codes of ``pre`` ``[N, m]``.

    Args:
        activation: the variant.
        pre: pre-activations; of all features where :func:`looks_at_all`.
        threshold: θ of :class:`AboveThreshold`, not negative.
        k: K of :class:`TopK` and :class:`GroupMax`.
    """
    match activation:
        case AboveThreshold():
            # θ ≥ 0, so one threshold is both the ReLU and the cut
            return torch.nn.functional.threshold(pre, threshold, 0.0)
        case AboveThresholds(thresholds):
            return torch.where(pre > thresholds, pre, 0.0)
        case TopK(signed):
            values, indices = (pre if signed else pre.relu()).topk(k, dim=-1, sorted=False)
            return torch.zeros_like(pre).scatter(-1, indices, values)
        case GroupMax():
            groups = pre.relu().unflatten(-1, (k, -1))
            values, indices = groups.max(-1, keepdim=True)
            return torch.zeros_like(groups).scatter(-1, indices, values).flatten(-2)


def of_features(activation: Activation, features: Int64[Tensor, "F"]) -> Activation:
    """Return the activation of ``features`` alone, where they do not depend on the others."""
    if isinstance(activation, AboveThresholds):
        return replace(activation, thresholds=activation.thresholds[features])
    return activation


def moved(activation: Activation, device: torch.device | str) -> Activation:
    """Return the activation with its tensors on ``device``."""
    if isinstance(activation, AboveThresholds):
        return replace(activation, thresholds=activation.thresholds.to(device))
    return activation
