"""Parts under timm's names put together as timm keeps them: q, k, v in one matrix, and the like."""

import re

import torch

from vitscope.backbones.weights.renaming import State

MERGED = (
    (re.compile(r"(blocks\.\d+\.attn\.)q\.(weight|bias)"), ("q", "k", "v"), "qkv"),
    # the gate comes first in timm's SwiGLUPacked, as in Meta's w12
    (re.compile(r"(blocks\.\d+\.mlp\.)gate\.(weight|bias)"), ("gate", "up"), "fc1"),
)


def assembled(state: State, *, fold_cls_position: bool) -> State:
    """Merge, split, transpose and reshape in place what :class:`Layout` could only rename.

    What lacks its other parts stays as it is: it is found missing, and named, later.

    Args:
        state: as :meth:`Layout.renamed` returns it.
        fold_cls_position: where there are registers, add the position of CLS to CLS itself.
    """
    for first in list(state):
        for pattern, parts, whole in MERGED:
            if found := pattern.fullmatch(first):
                names = [f"{found[1]}{part}.{found[2]}" for part in parts]
                _merge(state, names, f"{found[1]}{whole}.{found[2]}")
    _split_pooling(state)
    _place_projection(state)
    for name, n_dims in (("cls_token", 3), ("pos_embed", 3)):
        value = state.get(name)
        if value is not None and value.ndim < n_dims:
            state[name] = value[(None,) * (n_dims - value.ndim)]
    if fold_cls_position:
        _fold_cls_position(state)
    return state


def _merge(state: State, names: list[str], whole: str) -> None:
    found = [state[name] for name in names if name in state]
    if len(found) == len(names) and len({part.shape for part in found}) == 1 and found[0].ndim:
        state[whole] = torch.cat(found)
        for name in names:
            del state[name]


def _split_pooling(state: State) -> None:
    """Split the joint projection of attention pooling into its query and its keys and values."""
    for kind in ("weight", "bias"):
        joint = state.get(f"attn_pool.in_proj.{kind}")
        if joint is not None and joint.ndim and len(joint) % 3 == 0:
            width = len(joint) // 3
            # copies: a view would keep the whole matrix in memory
            state[f"attn_pool.q.{kind}"] = joint[:width].clone()
            state[f"attn_pool.kv.{kind}"] = joint[width:].clone()
            del state[f"attn_pool.in_proj.{kind}"]


def _place_projection(state: State) -> None:
    """Make timm's head of CLIP's projection, which has no bias and may be stored transposed."""
    for name in ("head.projection", "head.projection_t"):
        if name in state and state[name].ndim == 2:
            projection = state.pop(name)
            projection = projection.T.contiguous() if name.endswith("_t") else projection
            state["head.weight"] = projection
            state["head.bias"] = torch.zeros(len(projection))


def _fold_cls_position(state: State) -> None:
    cls, positions = state.get("cls_token"), state.get("pos_embed")
    if "reg_token" not in state or cls is None or positions is None:
        return
    if cls.shape == positions[:, :1].shape:
        state["cls_token"] = cls + positions[:, :1]
        state["pos_embed"] = positions[:, 1:]
