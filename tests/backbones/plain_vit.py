"""The networks of Meta's DINOv2 and DeiT3, on state dicts under the names that Meta released."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

State = dict[str, Tensor]


@dataclass(frozen=True)
class MetaShape:
    """What tells the two families, and their members, apart."""

    width: int = 24
    depth: int = 3
    heads: int = 3
    patch: int = 8
    side: int = 4
    hidden: int = 48
    gated: bool = False
    n_registers: int = 0
    cls_has_position: bool = True
    scales: tuple[str, str] = ("ls1.gamma", "ls2.gamma")


def meta_state(shape: MetaShape, seed: int = 0) -> State:
    """Return random weights, none near what training starts from."""
    g = torch.Generator().manual_seed(seed)
    wide = shape.width

    def tensor(*size: int, spread: float = 0.3, centre: float = 0.0) -> Tensor:
        return torch.randn(size, generator=g) * spread + centre

    def linear(name: str, n_out: int, n_in: int) -> State:
        weight = tensor(n_out, n_in, spread=1.5 * n_in**-0.5)
        return {f"{name}.weight": weight, f"{name}.bias": tensor(n_out)}

    def norm(name: str) -> State:
        return {f"{name}.weight": tensor(wide, centre=1.0), f"{name}.bias": tensor(wide)}

    n_positions = shape.side**2 + shape.cls_has_position
    state = {
        "cls_token": tensor(1, 1, wide, spread=1.0),
        "pos_embed": tensor(1, n_positions, wide, spread=1.0),
        "patch_embed.proj.weight": tensor(wide, 3, shape.patch, shape.patch, spread=0.1),
        "patch_embed.proj.bias": tensor(wide),
        **norm("norm"),
    }
    if shape.n_registers:
        state["register_tokens"] = tensor(1, shape.n_registers, wide, spread=1.0)
    for index in range(shape.depth):
        block = f"blocks.{index}"
        state |= norm(f"{block}.norm1") | norm(f"{block}.norm2")
        state |= linear(f"{block}.attn.qkv", 3 * wide, wide)
        state |= linear(f"{block}.attn.proj", wide, wide)
        first, last = ("w12", "w3") if shape.gated else ("fc1", "fc2")
        state |= linear(f"{block}.mlp.{first}", shape.hidden * (1 + shape.gated), wide)
        state |= linear(f"{block}.mlp.{last}", wide, shape.hidden)
        state |= {f"{block}.{scale}": tensor(wide, centre=1.0) for scale in shape.scales}
    return state


def meta_blocks(state: State, shape: MetaShape, pixels: Tensor) -> list[Tensor]:
    """Return the residual stream after each block, [B, T, D], prefix first."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return centred / scale * state[f"{name}.weight"] + state[f"{name}.bias"]

    def attention(name: str, x: Tensor) -> Tensor:
        q, k, v = linear(f"{name}.qkv", x).chunk(3, -1)
        size = shape.width // shape.heads
        heads: list[Tensor] = []
        for h in range(shape.heads):
            own = slice(h * size, (h + 1) * size)
            scores = q[..., own] @ k[..., own].transpose(1, 2) / size**0.5
            heads.append(scores.softmax(-1) @ v[..., own])
        return linear(f"{name}.proj", torch.cat(heads, -1))

    def mlp(name: str, x: Tensor) -> Tensor:
        if not shape.gated:
            return linear(f"{name}.fc2", functional.gelu(linear(f"{name}.fc1", x)))
        gate, value = linear(f"{name}.w12", x).chunk(2, -1)
        return linear(f"{name}.w3", gate * torch.sigmoid(gate) * value)

    patches = functional.conv2d(
        pixels, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], shape.patch
    )
    x = patches.flatten(2).transpose(1, 2)
    cls = state["cls_token"].expand(len(x), 1, -1)
    if shape.cls_has_position:
        x = torch.cat([cls, x], 1) + state["pos_embed"]
    else:
        x = torch.cat([cls, x + state["pos_embed"]], 1)
    if shape.n_registers:
        registers = state["register_tokens"].expand(len(x), -1, -1)
        x = torch.cat([x[:, :1], registers, x[:, 1:]], 1)
    outputs: list[Tensor] = []
    for index in range(shape.depth):
        block = f"blocks.{index}"
        first, second = (state[f"{block}.{scale}"] for scale in shape.scales)
        x = x + first * attention(f"{block}.attn", norm(f"{block}.norm1", x))
        x = x + second * mlp(f"{block}.mlp", norm(f"{block}.norm2", x))
        outputs.append(x)
    return outputs


def chunked(state: State, size: int = 2) -> State:
    """Return the same weights with the blocks in chunks, as Meta's training keeps them."""
    moved: State = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] == "blocks":
            parts.insert(1, str(int(parts[1]) // size))
        moved[".".join(parts)] = value
    return moved
