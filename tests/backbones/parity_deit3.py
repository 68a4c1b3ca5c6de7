"""DeiT III written down once more, from its paper: `transformers` has no form of it.

It is a pre-norm vision transformer with LayerScale (Touvron et al. 2022, arXiv 2204.07118), whose
class token joins after the positions were added. Weights are named as the authors' files name them.
"""

import torch
from tests.backbones.parity_comparison import GAIN
from tests.backbones.parity_transformers import RivalRun
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional

EPS = 1e-6

State = dict[str, Tensor]


def deit3_weights(ours: VisionTransformer, seed: int = 0) -> State:
    """Return random weights of the shape of ``ours``, under the authors' names."""
    g = torch.Generator().manual_seed(seed)
    state: State = {}
    for name, parameter in ours.named_parameters():
        value = 0.3 * torch.randn(parameter.shape, generator=g)
        if name in {"pos_embed", "cls_token"}:
            value /= 0.3
        elif name.endswith("gamma") or ("norm" in name and name.endswith("weight")):
            value += 1
        elif value.ndim > 1:
            value *= GAIN / 0.3 * value[0].numel() ** -0.5
        state[name.replace(".ls1.gamma", ".gamma_1").replace(".ls2.gamma", ".gamma_2")] = value
    return state


@torch.inference_mode()
def run_deit3(state: State, pixels: Tensor, n_heads: int) -> RivalRun:
    """Run the network on pixels [B, 3, H, W], in float64: what remains is the other's rounding."""
    state = {name: value.double() for name, value in state.items()}
    pixels = pixels.double()
    patches = _patches(state, pixels) + state["pos_embed"]
    x = torch.cat([state["cls_token"].expand(len(pixels), -1, -1), patches], 1)
    hidden, attentions = [x], list[Tensor]()
    while f"blocks.{len(attentions)}.gamma_1" in state:
        prefix = f"blocks.{len(attentions)}."
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        mixed, probabilities = _attend(own, _normed(own, "norm1", x), n_heads)
        x = x + own["gamma_1"] * mixed
        inner = functional.gelu(_linear(own, "mlp.fc1", _normed(own, "norm2", x)))
        x = x + own["gamma_2"] * _linear(own, "mlp.fc2", inner)
        hidden.append(x)
        attentions.append(probabilities)
    final = _normed(state, "norm", x)
    return RivalRun(tuple(hidden), tuple(attentions), final, final[:, 0])


def _patches(state: State, pixels: Tensor) -> Tensor:
    """Cut into patches and project each: a convolution, without one."""
    kernel = state["patch_embed.proj.weight"]
    n = kernel.shape[-1]
    cut = pixels.unfold(2, n, n).unfold(3, n, n)  # [B, 3, p, p, n, n]
    flat = cut.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    return flat @ kernel.flatten(1).T + state["patch_embed.proj.bias"]


def _attend(own: State, z: Tensor, n_heads: int) -> tuple[Tensor, Tensor]:
    joint = _linear(own, "attn.qkv", z).unflatten(-1, (3, n_heads, -1))  # [B, T, 3, A, h]
    query, key, value = joint.unbind(2)
    scores = torch.einsum("bqah,bkah->baqk", query, key) / query.shape[-1] ** 0.5
    probabilities = scores.softmax(-1)
    mixed = torch.einsum("baqk,bkah->bqah", probabilities, value).flatten(2)
    return _linear(own, "attn.proj", mixed), probabilities


def _linear(own: State, name: str, x: Tensor) -> Tensor:
    return x @ own[f"{name}.weight"].T + own[f"{name}.bias"]


def _normed(own: State, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + EPS).rsqrt()
    return centred * scale * own[f"{name}.weight"] + own[f"{name}.bias"]
