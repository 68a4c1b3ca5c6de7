"""A whole CLIP checkpoint in OpenAI's names, from the image tower in timm's."""

import re

import torch
from torch import Tensor

# timm's name -> OpenAI's, below "visual."; the first that matches a whole name wins
_NAMES = (
    (r"patch_embed\.proj\.weight", r"conv1.weight"),
    (r"cls_token", r"class_embedding"),
    (r"pos_embed", r"positional_embedding"),
    (r"norm_pre\.(\w+)", r"ln_pre.\1"),
    (r"norm\.(\w+)", r"ln_post.\1"),
    (r"head\.weight", r"proj"),
    (r"blocks\.(\d+)\.norm([12])\.(\w+)", r"transformer.resblocks.\1.ln_\2.\3"),
    (r"blocks\.(\d+)\.attn\.qkv\.(\w+)", r"transformer.resblocks.\1.attn.in_proj_\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(\w+)", r"transformer.resblocks.\1.attn.out_proj.\2"),
    (r"blocks\.(\d+)\.mlp\.fc1\.(\w+)", r"transformer.resblocks.\1.mlp.c_fc.\2"),
    (r"blocks\.(\d+)\.mlp\.fc2\.(\w+)", r"transformer.resblocks.\1.mlp.c_proj.\2"),
)


def openai_state(timm_state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the same image tower in OpenAI's layout, with a text tower beside it."""
    state = {
        # a piece of the text tower, which shares names with the image tower but for the prefix
        "positional_embedding": torch.randn(77, 512),
        "token_embedding.weight": torch.randn(100, 512),
        "transformer.resblocks.0.ln_1.weight": torch.randn(512),
        "transformer.resblocks.0.attn.in_proj_weight": torch.randn(1536, 512),
        "ln_final.weight": torch.randn(512),
        "text_projection": torch.randn(512, 512),
        "logit_scale": torch.tensor(4.6),
    }
    for name, value in timm_state.items():
        if name == "head.bias":
            continue  # OpenAI's projection has none
        for pattern, replacement in _NAMES:
            if re.fullmatch(pattern, name):
                state["visual." + re.sub(pattern, replacement, name)] = _as_openai(name, value)
                break
        else:
            raise AssertionError(f"{name} has no place in OpenAI's layout")
    return state


def _as_openai(name: str, value: Tensor) -> Tensor:
    match name:
        case "cls_token":
            return value[0, 0].clone()
        case "pos_embed":
            return value[0].clone()
        case "head.weight":
            return value.T.contiguous()
        case _:
            return value
