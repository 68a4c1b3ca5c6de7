"""Tokens without a group of features (protocol, section 8)."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from vitscope.axes import Bool, Rows
from vitscope.errors import SaeError
from vitscope.removal.contribution import contribution, encode_sparse, resting_point, rows_that_fit
from vitscope.removal.groups import Group, group_mask
from vitscope.sae.code import SparseCode
from vitscope.sae.model import SparseAutoencoder


def remove(
    sae: SparseAutoencoder,
    tokens: Float[Tensor, "... d"],
    group: Group,
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
    groups: Mapping[str, Group],
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
    for some in rows_that_fit(len(rows), sae.n_features):
        raw = rows[some]
        encoded = raw.to(sae.w_dec.dtype)
        active = encode_sparse(sae, encoded)
        for name, mask in masks.items():
            if keep_error:
                variants[name][some] = _subtract(raw, contribution(sae, encoded, active, mask))
            else:
                variants[name][some] = _rebuild(sae, encoded, active, ~mask).to(raw.dtype)
    return {name: value.reshape(tokens.shape) for name, value in variants.items()}


def _subtract(raw: Rows, part: Rows) -> Rows:
    # in the wider of both types, so that a float16 token is not rounded before it must be
    wide = torch.promote_types(raw.dtype, part.dtype)
    return (raw.to(wide) - part.to(wide)).to(raw.dtype)


def _rebuild(
    sae: SparseAutoencoder, encoded: Rows, active: SparseCode, kept: Bool[Tensor, "m"]
) -> Rows:
    return contribution(sae, encoded, active, kept) + resting_point(sae, encoded)
