"""Mistakes that a converter or an adapter could make, made on purpose on a loaded timm model."""

from collections.abc import Callable
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

Mistake = Callable[[VisionTransformer], None]


def _swap(first: Tensor, second: Tensor) -> None:
    kept = first.clone()
    first.copy_(second)
    second.copy_(kept)


def _in_every_block(change: Callable[[Any], None]) -> Mistake:
    @torch.no_grad()
    def make(model: VisionTransformer) -> None:
        for block in model.blocks:
            change(block)

    return make


def _swap_norms(block: Any) -> None:
    for kind in ("weight", "bias"):
        _swap(getattr(block.norm1, kind), getattr(block.norm2, kind))


def _swap_scales(block: Any) -> None:
    _swap(block.ls1.gamma, block.ls2.gamma)


def _swap_gate(block: Any) -> None:
    for weight in (block.mlp.fc1.weight, block.mlp.fc1.bias):
        _swap(*weight.chunk(2))


def _swap_parts(first: int, second: int) -> Callable[[Any], None]:
    def change(block: Any) -> None:
        for weight in (block.attn.qkv.weight, block.attn.qkv.bias):
            parts = weight.chunk(3)
            _swap(parts[first], parts[second])

    return change


@torch.no_grad()
def _swap_pooled_key_and_value(model: VisionTransformer) -> None:
    pool: Any = model.attn_pool
    for weight in (pool.kv.weight, pool.kv.bias):
        _swap(*weight.chunk(2))


swap_norms = _in_every_block(_swap_norms)
swap_scales = _in_every_block(_swap_scales)
swap_gate = _in_every_block(_swap_gate)
swap_query_and_key = _in_every_block(_swap_parts(0, 1))
swap_key_and_value = _in_every_block(_swap_parts(1, 2))
swap_pooled_key_and_value: Mistake = _swap_pooled_key_and_value


@torch.no_grad()
def transpose_positions(model: VisionTransformer) -> None:
    """Lay the patch positions out by column."""
    positions, grid = model.pos_embed, model.patch_embed.grid_size
    assert positions is not None and grid is not None
    patches = positions[:, positions.shape[1] - grid[0] * grid[1] :]
    patches.copy_(patches.unflatten(1, grid).transpose(1, 2).flatten(1, 2).clone())


def use_activation(model: VisionTransformer, activation: torch.nn.Module) -> None:
    """Put another activation into every MLP."""
    for block in model.blocks:
        mlp: Any = block.mlp
        mlp.act = activation
