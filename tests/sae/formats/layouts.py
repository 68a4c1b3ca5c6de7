"""SAE files in the true layout of libraries that cannot be installed, and plain arithmetic.

Names, nesting and header fields are those that the projects' own sources write; the arithmetic
is written out here a second time, from the projects' definitions, and shares nothing with vitscope.
"""

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WIDTH, FEATURES, TOKENS, K = 8, 32, 40, 5
SHAPES = {
    "W_enc": (WIDTH, FEATURES),
    "b_enc": (FEATURES,),
    "W_dec": (FEATURES, WIDTH),
    "b_dec": (WIDTH,),
    "b_gate": (FEATURES,),
    "r_mag": (FEATURES,),
    "b_mag": (FEATURES,),
}

Parts = dict[str, Tensor]


def random_parts(seed: int, *names: str) -> Parts:
    g = torch.Generator().manual_seed(seed)
    every = {name: 0.7 * torch.randn(shape, generator=g) for name, shape in SHAPES.items()}
    return {name: every[name] for name in names or ("W_enc", "b_enc", "W_dec", "b_dec")}


def tokens() -> Tensor:
    g = torch.Generator().manual_seed(9)
    return 2.5 * torch.randn(TOKENS, WIDTH, generator=g) + torch.linspace(-1, 3, WIDTH)


def write_saev(path: Path, header: dict[str, Any], parts: Parts) -> Path:
    """One JSON line, then ``torch.save`` of the state dict in the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = io.BytesIO()
    torch.save(parts, body)
    path.write_bytes(json.dumps(header).encode() + b"\n" + body.getvalue())
    return path


def write_prisma(folder: Path, parts: Parts, **changes: Any) -> Path:
    """``weights.pt`` and a ``config.json`` with the fields that its dataclass writes."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(parts, folder / "weights.pt")
    config = {
        "model_class_name": "HookedViT",
        "model_name": "open-clip:laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
        "vit_model_cfg": None,
        "hook_point_layer": 9,
        "layer_subtype": "hook_resid_post",
        "context_size": 50,
        "use_patches_only": False,
        "d_in": WIDTH,
        "activation_fn_str": "relu",
        "activation_fn_kwargs": {},
        "cls_token_only": False,
        "normalize_activations": "layer_norm",
        "device": {"__type__": "torch.device", "value": "cuda"},
        "dtype": {"__type__": "torch.dtype", "value": "torch.float32"},
        "architecture": "standard",
        "expansion_factor": FEATURES // WIDTH,
        "d_sae": None,
        "is_transcoder": False,
    } | changes
    (folder / "config.json").write_text(json.dumps(config, indent=4))
    return folder


def layer_norm(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised tokens with what undoes it: deviation of n − 1, ε added to it, not undone."""
    mean = x.sum(1, keepdim=True) / x.shape[1]
    deviation = (((x - mean) ** 2).sum(1, keepdim=True) / (x.shape[1] - 1)) ** 0.5
    return (x - mean) / (deviation + 1e-5), deviation, mean


def top_k(pre: Tensor, k: int) -> Tensor:
    """The k largest of every row, by a full sort."""
    kept = torch.zeros_like(pre)
    for row, values in enumerate(pre):
        best = values.argsort(descending=True)[:k]
        kept[row, best] = values[best]
    return kept


def gated(seen: Tensor, parts: Parts) -> Tensor:
    gate = (seen @ parts["W_enc"] + parts["b_gate"] > 0).float()
    magnitude = seen @ (parts["W_enc"] * parts["r_mag"].exp()) + parts["b_mag"]
    return gate * magnitude.clamp_min(0)
