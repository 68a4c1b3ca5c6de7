"""The models of ``transformers`` that can be read at a block, and where each keeps its parts.

All of them are a stem, a list of pre-norm blocks, a final norm and a pooling; they differ in what
these are called, in whether there is a class token, and in where positions come in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from vitscope.backbones.zoo import CLIP_MEAN, CLIP_STD, HALF, IMAGENET_MEAN, IMAGENET_STD

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        model_class: its vision model in ``transformers``.
        blocks: where the list of blocks is, seen from the model.
        norm: a block's norm before its attention.
        attention: a block's attention.
        stem: the model's tokens before its first block, from pixels; the flag says that these are
            of another resolution than the position embeddings.
        finish: normalised tokens, and the image embedding, from the last block's output.
        n_class: class tokens.
        mean: per RGB channel, where the folder has no preprocessing of its own.
        std: per RGB channel, likewise.
        rotary: whether the blocks rotate queries and keys by position.
        options: of the model's constructor.
    """

    model_class: str
    blocks: str
    norm: str
    attention: str
    stem: Callable[[Any, Tensor, bool], Tensor]
    finish: Callable[[Any, Tensor], tuple[Tensor, Tensor]]
    n_class: int
    mean: Channels
    std: Channels
    rotary: bool = False
    options: tuple[tuple[str, Any], ...] = ()

    def blocks_of(self, model: Any) -> Sequence[Any]:
        """Return the blocks, first to last."""
        return attrgetter(self.blocks)(model)

    def n_prefix(self, model: Any) -> int:
        """Return the number of class and register tokens."""
        return self.n_class + int(getattr(model.config, "num_register_tokens", 0))

    def positions(self, model: Any, pixels: Tensor) -> dict[str, Any]:
        """Return what every block is given of the positions; nothing where the stem adds them."""
        return {"position_embeddings": model.rope_embeddings(pixels)} if self.rotary else {}

    def query_and_key(
        self, block: Any, hidden: Tensor, positions: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Return queries, multiplied by the scale, and keys of a block's input, [B, A, T, h]."""
        attention: Any = getattr(block, self.attention)
        z = getattr(block, self.norm)(hidden)

        def heads(projection: Any) -> Tensor:
            return projection(z).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)

        query, key = heads(attention.q_proj), heads(attention.k_proj)
        if self.rotary:
            cos, sin = positions["position_embeddings"]
            query, key = rotated(query, cos, sin), rotated(key, cos, sin)
        return query * attention.head_dim**-0.5, key


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the patch tokens of queries or keys [B, A, T, h]; prefix tokens have no position."""
    n_prefix = x.shape[2] - cos.shape[0]
    prefix, patch = x[:, :, :n_prefix], x[:, :, n_prefix:]
    first, second = patch.chunk(2, -1)
    return torch.cat([prefix, patch * cos + torch.cat([-second, first], -1) * sin], 2)


def _clip_stem(model: Any, pixels: Tensor, resized: bool) -> Tensor:
    return model.pre_layrnorm(_fixed_stem(model, pixels, resized))


def _fixed_stem(model: Any, pixels: Tensor, resized: bool) -> Tensor:
    return model.embeddings(pixels, interpolate_pos_encoding=resized)


def _any_size_stem(model: Any, pixels: Tensor, resized: bool) -> Tensor:
    del resized  # these adapt to the pixels unasked
    return model.embeddings(pixels)


def _clip_finish(model: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
    # the model's own `last_hidden_state` is without this norm, its `pooler_output` with it
    return model.post_layernorm(hidden), model.post_layernorm(hidden[:, 0])


def _siglip_finish(model: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
    normed = model.post_layernorm(hidden)
    # without a pooling head, classifiers are put on the mean
    return normed, model.head(normed) if model.use_head else normed.mean(1)


def _class_finish(model: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
    normed = model.layernorm(hidden)
    return normed, normed[:, 0]


def _dinov3_finish(model: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
    normed = model.norm(hidden)
    return normed, normed[:, 0]


_CLIP = Family(
    "CLIPVisionModel",
    *("encoder.layers", "layer_norm1", "self_attn"),
    *(_clip_stem, _clip_finish, 1),
    *(CLIP_MEAN, CLIP_STD),
)
_SIGLIP = Family(
    "SiglipVisionModel",
    *("encoder.layers", "layer_norm1", "self_attn"),
    *(_fixed_stem, _siglip_finish, 0),
    *(HALF, HALF),
)
_DINOV2 = ("encoder.layer", "norm1", "attention", _any_size_stem, _class_finish, 1)

FAMILIES: dict[str, Family] = {
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "dinov2": Family("Dinov2Model", *_DINOV2, IMAGENET_MEAN, IMAGENET_STD),
    "dinov2_with_registers": Family(
        "Dinov2WithRegistersModel", *_DINOV2, IMAGENET_MEAN, IMAGENET_STD
    ),
    "dinov3_vit": Family(
        "DINOv3ViTModel",
        *("model.layer", "norm1", "attention"),
        *(_any_size_stem, _dinov3_finish, 1),
        *(IMAGENET_MEAN, IMAGENET_STD),
        rotary=True,
    ),
    # classifiers are saved without the pooler: it would stay random
    "vit": Family(
        "ViTModel",
        *("layers", "layernorm_before", "attention"),
        *(_fixed_stem, _class_finish, 1),
        *(HALF, HALF),
        options=(("add_pooling_layer", False),),
    ),
}
"""By ``model_type`` of a ``config.json``. SigLIP 2 of one resolution calls itself ``siglip``."""
