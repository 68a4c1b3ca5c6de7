"""Tokens without a group of features, and what a group contributes (protocol, section 8)."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitscope.axes import Bool, Rows
from vitscope.errors import SaeError
from vitscope.sae.code import SparseCode
from vitscope.sae.model import SparseAutoencoder
from vitscope.scope.exemplars import codes_that_fit

FeatureGroup = Tensor | NDArray[np.int64] | NDArray[np.bool_] | Sequence[int]
"""Feature indices in any order, or one boolean per feature."""


def group_mask(group: FeatureGroup, n_features: int) -> Bool[Tensor, "m"]:
    """Return which of ``n_features`` belong to ``group``; a feature named twice counts once.

    Raises:
        SaeError: an index is no feature, a mask has another length, or neither was given.
    """
    given = (
        group.detach().cpu() if isinstance(group, Tensor) else torch.as_tensor(np.asarray(group))
    )
    if given.dtype == torch.bool:
        if tuple(given.shape) != (n_features,):
            raise SaeError(
                f"the group is a mask of shape {list(given.shape)}; the SAE has {n_features} "
                "features: give one boolean for each, or the features' indices"
            )
        return given
    if given.numel() and (given.is_floating_point() or given.ndim != 1):
        raise SaeError(
            f"the group has type {given.dtype} and shape {list(given.shape)}; give feature "
            "indices [n], or one boolean per feature"
        )
    mask = torch.zeros(n_features, dtype=torch.bool)
    indices = given.long().flatten()
    wrong = indices[(indices < 0) | (indices >= n_features)]
    if wrong.numel():
        raise SaeError(
            f"the group names feature {int(wrong[0])}; the SAE's features are 0 to "
            f"{n_features - 1}: take the group from this SAE's own partition"
        )
    mask[indices] = True
    return mask


def remove(
    sae: SparseAutoencoder,
    tokens: Float[Tensor, "... d"],
    group: FeatureGroup,
    *,
    keep_error: bool = True,
) -> Float[Tensor, "... d"]:
    """Return ``tokens`` without what the features of ``group`` contribute (protocol, section 8).

    The cost is that of encoding once: only the group's active entries are decoded. An empty group
    returns the tokens bit for bit.

    Args:
        sae: the dictionary; encodes on the tokens' device.
        tokens: raw activations at the SAE's site, of any leading shape.
        group: feature indices, or one boolean per feature.
        keep_error: x - Σ a_j·d_j over the group, so that what the SAE does not explain stays.
            False: the reconstruction from the features outside the group.

    Returns:
        new tokens of the same shape, type and device.

    Raises:
        SaeError: another width than the SAE's, or the group names a feature that does not exist.
    """
    return remove_groups(sae, tokens, {"": group}, keep_error=keep_error)[""]


def remove_groups(
    sae: SparseAutoencoder,
    tokens: Float[Tensor, "... d"],
    groups: Mapping[str, FeatureGroup],
    *,
    keep_error: bool = True,
) -> dict[str, Float[Tensor, "... d"]]:
    """Return one variant of ``tokens`` per group, all from one encoding; see :func:`remove`."""
    if tokens.ndim == 0 or tokens.shape[-1] != sae.width:
        raise SaeError(
            f"tokens have shape {list(tokens.shape)}; their last axis must be the SAE's width, "
            f"{sae.width}: take them from the backbone and block that it was trained on"
        )
    masks = {name: group_mask(group, sae.n_features) for name, group in groups.items()}
    sae, rows = sae.to(tokens.device), tokens.reshape(-1, sae.width)
    variants = {name: torch.empty_like(rows) for name in masks}
    for some in codes_that_fit(len(rows), 1, sae.n_features):
        raw = rows[some]
        encoded = raw.to(sae.w_dec.dtype)
        active = SparseCode.from_dense(sae.encode(encoded))
        # in the wider of both types, so that a float16 token is not rounded before it must be
        wide = torch.promote_types(raw.dtype, encoded.dtype)
        for name, mask in masks.items():
            if keep_error:
                edited = raw.to(wide) - contribution(sae, encoded, active, mask).to(wide)
            else:
                edited = contribution(sae, encoded, active, ~mask) + _without_features(sae, encoded)
            variants[name][some] = edited.to(raw.dtype)
    return {name: value.reshape(tokens.shape) for name, value in variants.items()}


def contribution(
    sae: SparseAutoencoder, rows: Rows, active: SparseCode, members: Bool[Tensor, "m"]
) -> Rows:
    """Return Σ a_j·d_j over the features of ``members``, in the units of ``rows``, [N, d].

    Over all features this is the reconstruction less b_dec.

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


def _without_features(sae: SparseAutoencoder, rows: Rows) -> Rows:
    """Return the reconstruction of ``rows`` [N, d] when no feature is active: b_dec, unscaled."""
    return sae.decode(rows.new_zeros(len(rows), sae.n_features), like=rows)
