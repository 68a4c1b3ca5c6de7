"""Small vision models of transformers, and the files that it makes of them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tests.backbones.parity_comparison import randomise
from tests.backbones.twins import (
    CLIP_TWIN,
    DEPTH,
    DINOV2_TWIN,
    GATED_TWIN,
    HEADS,
    HIDDEN,
    N_CLASSES,
    PATCH,
    REGISTERS,
    REGISTERS_TWIN,
    SIDE,
    SIGLIP_TWIN,
    WIDTH,
    Case,
    State,
    state_of,
    twin,
)
from tests.backbones.untyped import transformers
from torch import Tensor, nn

HF_SIZE: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "image_size": SIDE,
    "patch_size": PATCH,
    "attn_implementation": "eager",
}
HF_VISION: dict[str, Any] = {**HF_SIZE, "intermediate_size": HIDDEN}
HF_TEXT: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "vocab_size": 50, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip


@torch.no_grad()
def hf_blocks(vision: Any, pixels: Tensor) -> list[Tensor]:
    return list(vision(pixel_values=pixels, output_hidden_states=True).hidden_states[1:])


def hf_case(
    layout: str,
    source: Any,
    changes: dict[str, Any],
    *,
    tower: str | None = None,
    head: Callable[[Any, Tensor], Tensor] | None = None,
) -> Case:
    """Return a case of a transformers model, under the names that it has in memory."""
    randomise(source)
    source.eval()
    return Case(
        layout=layout,
        state=state_of(source),
        build=partial(twin, **changes),
        blocks=partial(hf_blocks, getattr(source, tower) if tower else source),
        head=partial(head, source) if head else None,
    )


def hf_model(kind: str) -> Any:
    """Return one of transformers' models, small and fresh."""
    t: Any = transformers
    vision = dict(HF_VISION)
    clip, siglip = t.CLIPVisionConfig(**vision), t.SiglipVisionConfig(**vision)
    dino = {**HF_SIZE, "mlp_ratio": 2}
    match kind:
        case "CLIPVisionModel":
            return t.CLIPVisionModel(clip)
        case "CLIPVisionModelWithProjection":
            return t.CLIPVisionModelWithProjection(
                t.CLIPVisionConfig(**vision, projection_dim=N_CLASSES)
            )
        case "CLIPModel":
            return t.CLIPModel(
                t.CLIPConfig(vision_config=vision, text_config=HF_TEXT, projection_dim=N_CLASSES)
            )
        case "SiglipVisionModel":
            return t.SiglipVisionModel(siglip)
        case "SiglipModel":
            return t.SiglipModel(t.SiglipConfig(vision_config=vision, text_config=HF_TEXT))
        case "Dinov2Model":
            return t.Dinov2Model(t.Dinov2Config(**dino))
        case "Dinov2Model (SwiGLU)":
            return t.Dinov2Model(t.Dinov2Config(**dino, use_swiglu_ffn=True))
        case "Dinov2WithRegistersModel":
            return t.Dinov2WithRegistersModel(
                t.Dinov2WithRegistersConfig(**dino, num_register_tokens=REGISTERS)
            )
        case "Dinov2ForImageClassification":
            return t.Dinov2ForImageClassification(t.Dinov2Config(**dino, num_labels=N_CLASSES))
        case "ViTModel":
            return t.ViTModel(t.ViTConfig(**vision))
        case "ViTForImageClassification":
            return t.ViTForImageClassification(t.ViTConfig(**vision, num_labels=N_CLASSES))
        case _:
            raise AssertionError(kind)


def saved(model: Any, folder: Path, **options: Any) -> State:
    """Return what ``save_pretrained`` writes, which has the names of the hub's files."""
    model.save_pretrained(folder, **options)
    state: State = {}
    for file in folder.glob("*.safetensors"):
        state |= load_file(file)
    return state


def image_embeds(model: Any, pixels: Tensor) -> Tensor:
    return model(pixel_values=pixels).image_embeds


def clip_features(model: Any, pixels: Tensor) -> Tensor:
    found: Any = model.get_image_features(pixel_values=pixels)
    return found if isinstance(found, Tensor) else found.pooler_output


def pooled(model: Any, pixels: Tensor) -> Tensor:
    return model(pixel_values=pixels).pooler_output


def logits(model: Any, pixels: Tensor) -> Tensor:
    return model(pixel_values=pixels).logits


HF_VIT_TWIN: dict[str, Any] = {"norm_layer": partial(nn.LayerNorm, eps=1e-12)}

HF: dict[str, Callable[[str], Case]] = {
    "CLIPVisionModel": lambda k: hf_case("Hugging Face CLIP", hf_model(k), CLIP_TWIN),
    "CLIPVisionModelWithProjection": lambda k: hf_case(
        "Hugging Face CLIP", hf_model(k), CLIP_TWIN, tower="vision_model", head=image_embeds
    ),
    "CLIPModel": lambda k: hf_case(
        "Hugging Face CLIP", hf_model(k), CLIP_TWIN, tower="vision_model", head=clip_features
    ),
    "SiglipVisionModel": lambda k: hf_case(
        "Hugging Face SigLIP", hf_model(k), SIGLIP_TWIN, head=pooled
    ),
    "SiglipModel": lambda k: hf_case(
        "Hugging Face SigLIP", hf_model(k), SIGLIP_TWIN, tower="vision_model", head=clip_features
    ),
    "Dinov2Model": lambda k: hf_case("Hugging Face DINOv2", hf_model(k), DINOV2_TWIN, head=pooled),
    "Dinov2Model (SwiGLU)": lambda k: hf_case(
        "Hugging Face DINOv2", hf_model(k), GATED_TWIN, head=pooled
    ),
    "Dinov2WithRegistersModel": lambda k: hf_case(
        "Hugging Face DINOv2", hf_model(k), REGISTERS_TWIN, head=pooled
    ),
    "Dinov2ForImageClassification": lambda k: hf_case(
        "Hugging Face DINOv2", hf_model(k), DINOV2_TWIN, tower="dinov2"
    ),
    "ViTModel": lambda k: hf_case("Hugging Face ViT", hf_model(k), HF_VIT_TWIN),
    "ViTForImageClassification": lambda k: hf_case(
        "Hugging Face ViT", hf_model(k), {**HF_VIT_TWIN, "num_classes": N_CLASSES}, head=logits,
        tower="vit",
    ),
}  # fmt: skip
