"""The timm twins of small published networks, and how the two are run side by side."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from timm.layers.mlp import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

State = dict[str, Tensor]

SIDE, PATCH, WIDTH, DEPTH, HEADS, HIDDEN = 32, 8, 24, 3, 3, 48
GATED = 32
"""Hidden width that transformers gives SwiGLU for ``mlp_ratio`` 2: two thirds of 48."""

N_CLASSES = 5


@dataclass(frozen=True)
class Case:
    """A file's contents and what they must compute.

    Attributes:
        layout: the name under which it is to be recognised.
        state: names and tensors as the library writes them.
        build: the timm model of the same shape, freshly made.
        blocks: the library's own output of every block, [B, T, D] each, for given pixels.
        head: the library's own output of the head, where the file has it.
    """

    layout: str
    state: State
    build: Callable[[], VisionTransformer]
    blocks: Callable[[Tensor], list[Tensor]]
    head: Callable[[Tensor], Tensor] | None = None
    side: int = SIDE


def twin(**changes: Any) -> VisionTransformer:
    """Return a fresh timm model of the size of all files here, as timm initialises it."""
    options: dict[str, Any] = {
        "img_size": SIDE,
        "patch_size": PATCH,
        "embed_dim": WIDTH,
        "depth": DEPTH,
        "num_heads": HEADS,
        "mlp_ratio": HIDDEN / WIDTH,
        "num_classes": 0,
    }
    return VisionTransformer(**options | changes).eval()


CLIP_TWIN: dict[str, Any] = {
    "pre_norm": True,
    "norm_layer": partial(nn.LayerNorm, eps=1e-5),
    "act_layer": "quick_gelu",
    "num_classes": N_CLASSES,
}
SIGLIP_TWIN: dict[str, Any] = {
    "class_token": False,
    "global_pool": "map",
    "act_layer": "gelu_tanh",
}
DINOV2_TWIN: dict[str, Any] = {"init_values": 1e-5}
GATED_TWIN: dict[str, Any] = {
    **DINOV2_TWIN,
    "mlp_layer": SwiGLUPacked,
    "act_layer": nn.SiLU,
    "mlp_ratio": 2 * GATED / WIDTH,
}
REGISTERS = 2
REGISTERS_TWIN: dict[str, Any] = {
    **DINOV2_TWIN,
    "reg_tokens": REGISTERS,
    "no_embed_class": True,
}


@torch.no_grad()
def outputs_of(blocks: nn.Module, run: Callable[[], Any]) -> list[Tensor]:
    """Run a network and return what each of ``blocks`` put out."""
    found: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        found.append(output)

    handles = [block.register_forward_hook(keep) for block in blocks.children()]
    run()
    for handle in handles:
        handle.remove()
    return found


def timm_blocks(model: VisionTransformer, pixels: Tensor) -> list[Tensor]:
    return outputs_of(cast(nn.Module, model.blocks), lambda: model.forward_features(pixels))


def state_of(model: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
