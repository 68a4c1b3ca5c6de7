"""Activation and token normalisation of an SAE as plain values in its card, and back."""

from typing import Any, cast

from torch import Tensor

from vitscope.sae.activation import AboveThreshold, AboveThresholds, Activation, GroupMax, TopK
from vitscope.sae.token_norm import ConstantNorm, LayerNorm, TokenNorm

THRESHOLDS = "thresholds"
"""Name of the one tensor that an activation may have."""


def describe_activation(activation: Activation) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return an activation's plain values, and its tensors by name."""
    match activation:
        case AboveThreshold():
            return {"kind": "threshold"}, {}
        case AboveThresholds(thresholds):
            return {"kind": "thresholds"}, {THRESHOLDS: thresholds}
        case TopK(signed):
            return {"kind": "topk", "signed": signed}, {}
        case GroupMax():
            return {"kind": "groupmax"}, {}


def read_activation(described: dict[str, Any], tensors: dict[str, Tensor]) -> Activation:
    """Return what :func:`describe_activation` was given; its tensors are taken from ``tensors``.

    Raises:
        KeyError: a value or tensor is missing.
        ValueError: a kind that does not exist.
    """
    match described["kind"]:
        case "threshold":
            return AboveThreshold()
        case "thresholds":
            return AboveThresholds(tensors.pop(THRESHOLDS))
        case "topk":
            return TopK(signed=bool(described["signed"]))
        case "groupmax":
            return GroupMax()
        case other:
            raise ValueError(f"no activation {other!r}")


def describe_token_norm(norm: TokenNorm | None) -> dict[str, Any] | None:
    """Return a token normalisation's plain values."""
    match norm:
        case None:
            return None
        case LayerNorm(epsilon):
            return {"kind": "layer", "epsilon": epsilon}
        case ConstantNorm():
            return {"kind": "constant"}


def read_token_norm(described: object) -> TokenNorm | None:
    """Return what :func:`describe_token_norm` was given.

    Raises:
        KeyError: a value is missing.
        ValueError: a kind that does not exist.
    """
    if described is None:
        return None
    values = cast(dict[str, Any], described)
    match values["kind"]:
        case "layer":
            return LayerNorm(float(values["epsilon"]))
        case "constant":
            return ConstantNorm()
        case other:
            raise ValueError(f"no token normalisation {other!r}")
