"""The same architectures in ``transformers``: from timm's shape to a rival with random weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tests.backbones.parity_comparison import randomise
from tests.backbones.untyped import transformers
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

Configure = Callable[[VisionTransformer], tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class RivalRun:
    """What a rival makes of a batch.

    Attributes:
        hidden: before the first block, and after every block.
        attentions: probabilities of every block, [B, A, T, T].
        final: tokens after the last block and the final norm.
        pooled: image embeddings.
    """

    hidden: tuple[Tensor, ...]
    attentions: tuple[Tensor, ...]
    final: Tensor
    pooled: Tensor


def build_rival(ours: VisionTransformer, family: str, seed: int = 0) -> Any:
    """Return the model of ``transformers`` of the same shape, every parameter random."""
    kind, options = CONFIGURE[family](ours)
    config = getattr(transformers, f"{kind}Config")(**_shape(ours), **options)
    with transformers.initialization.no_init_weights():
        model = getattr(transformers, f"{kind}Model")(config)
    randomise(model, seed)
    return model.eval()


@torch.inference_mode()
def run_rival(model: Any, pixels: Tensor) -> RivalRun:
    """Run a rival once as it is, and once in the form that returns its attention."""
    model.set_attn_implementation("sdpa")
    plain = model(pixels, output_hidden_states=True)
    model.set_attn_implementation("eager")
    attentions = model(pixels, output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    final = plain.last_hidden_state
    if isinstance(model, transformers.CLIPVisionModel):
        final = model.post_layernorm(final)  # CLIP's alone is returned without
    return RivalRun(plain.hidden_states, attentions, final, plain.pooler_output)


def _shape(ours: VisionTransformer) -> dict[str, Any]:
    size, block = ours.patch_embed.img_size, _first_block(ours)
    assert size is not None
    return {
        "hidden_size": ours.embed_dim,
        "num_hidden_layers": len(ours.blocks),
        "num_attention_heads": block.attn.num_heads,
        "image_size": size[0],
        "patch_size": ours.patch_embed.patch_size[0],
    }


def _first_block(ours: VisionTransformer) -> Any:
    return ours.blocks[0]


def _clip(ours: VisionTransformer) -> tuple[str, dict[str, Any]]:
    width = _first_block(ours).mlp.fc1.out_features
    return "CLIPVision", {"intermediate_size": width, "hidden_act": "quick_gelu"}


def _siglip(ours: VisionTransformer) -> tuple[str, dict[str, Any]]:
    width = _first_block(ours).mlp.fc1.out_features
    return "SiglipVision", {"intermediate_size": width, "hidden_act": "gelu_pytorch_tanh"}


def _dinov2(ours: VisionTransformer) -> tuple[str, dict[str, Any]]:
    gated = _first_block(ours).mlp.fc2.in_features != _first_block(ours).mlp.fc1.out_features
    options: dict[str, Any] = {"use_swiglu_ffn": gated, "mlp_ratio": 4}
    if ours.num_reg_tokens:
        return "Dinov2WithRegisters", {**options, "num_register_tokens": ours.num_reg_tokens}
    return "Dinov2", options


CONFIGURE: dict[str, Configure] = {"clip": _clip, "siglip": _siglip, "dinov2": _dinov2}
