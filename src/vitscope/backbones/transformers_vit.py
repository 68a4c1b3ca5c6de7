"""A vision transformer of Hugging Face ``transformers`` seen from one block.

The models that can be read so are a stem, a list of pre-norm blocks, a final norm and a pooling;
they differ in what these are called, in whether there is a class token, and in where positions
come in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from vitscope.backbones.adapter import BlockwiseBackbone
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


@dataclass(frozen=True)
class TransformersBackbone(BlockwiseBackbone):
    """Tokens, attention and resumption at block L of a model of ``transformers``.

    Attributes:
        family: where its parts are.
    """

    family: Family = field(kw_only=True)

    @property
    def n_prefix(self) -> int:
        """CLS and register tokens."""
        return self.family.n_class + int(getattr(self.model.config, "num_register_tokens", 0))

    @property
    def blocks(self) -> Sequence[Any]:
        """The blocks, first to last."""
        return self.family.blocks_of(self.model)

    def _stem(self, pixels: Tensor) -> Tensor:
        resized = self.site.resolution != self.model.config.image_size
        return self.family.stem(self.model, pixels, resized)

    def _through(self, hidden: Tensor, blocks: Sequence[Any]) -> Tensor:
        rotation = self._rotation()
        positions = {} if rotation is None else {"position_embeddings": rotation}
        for block in blocks:
            hidden = block(hidden, attention_mask=None, **positions)
        return hidden

    def _query_and_key(self, block: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
        attention: Any = getattr(block, self.family.attention)
        z = getattr(block, self.family.norm)(hidden)

        def heads(projection: Any) -> Tensor:
            return projection(z).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)

        query, key = heads(attention.q_proj), heads(attention.k_proj)
        if rotation := self._rotation():
            query, key = _rotated(query, *rotation), _rotated(key, *rotation)
        return query * attention.head_dim**-0.5, key

    def _finish(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        return self.family.finish(self.model, hidden)

    def _rotation(self) -> tuple[Tensor, Tensor] | None:
        """Return cos and sin of every patch's angles [P, h]; None where the stem adds positions."""
        if not self.family.rotary:
            return None
        side = self.site.resolution
        return self.model.rope_embeddings(torch.empty(1, 3, side, side, device=self.device))


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the patch tokens of queries or keys [B, A, T, h]; prefix tokens have no position.

    Channel i of the first half of a head and channel i of the second are the two coordinates of
    one plane, which is turned by the patch's angle: (a, b) -> (a·cos - b·sin, b·cos + a·sin).
    ``cos`` and ``sin`` repeat each angle in both halves (RoFormer, arXiv 2104.09864, in the
    half-split form of DINOv3).
    """
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

TRANSFORMERS_FAMILIES: dict[str, Family] = {
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
