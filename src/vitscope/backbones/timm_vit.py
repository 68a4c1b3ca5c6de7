"""Timm's vision transformers: architecture by name, weights from a file or the hub, one block seen.

The architecture is built on torch's meta device, without values: none can stay random.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import Tensor
from torch.nn import functional

from vitscope.backbones.adapter import BlockwiseBackbone, designated_layer, whole_grid
from vitscope.backbones.backbone import Preprocessing, Site, WeightsOrigin
from vitscope.backbones.fetching import PACKAGED, require_fetched
from vitscope.backbones.hub import fetch_weights, split_revision, unfetched
from vitscope.backbones.settings import BackboneSettings, Gelu
from vitscope.backbones.weights.reading import weights_checksum
from vitscope.backbones.weights.strict import load_weights
from vitscope.backbones.zoo import ZOO, nearest_name, position_method
from vitscope.errors import BackboneError


@dataclass(frozen=True)
class TimmBackbone(BlockwiseBackbone):
    """Tokens, attention and resumption at block L of a timm ``VisionTransformer``.

    Attributes:
        origin: whose the weights are, where they are not what the architecture's name says.
    """

    model: VisionTransformer
    origin: WeightsOrigin | None = None

    @property
    def n_prefix(self) -> int:
        """CLS and register tokens."""
        return int(self.model.num_prefix_tokens)

    @property
    def blocks(self) -> Sequence[Any]:
        """The blocks, first to last."""
        return cast(Sequence[Any], self.model.blocks)

    def _stem(self, pixels: Tensor) -> Tensor:
        model: Any = self.model
        return model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(pixels))))

    def _through(self, hidden: Tensor, blocks: Sequence[Any]) -> Tensor:
        for block in blocks:
            hidden = block(hidden)
        return hidden

    def _query_and_key(self, block: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
        attn = block.attn
        z = _attention_input(block, hidden)
        # one matrix holds queries, keys and values, in this order; values are not needed
        width = int(attn.num_heads * attn.head_dim)
        weight, bias = attn.qkv.weight, attn.qkv.bias

        def heads(start: int) -> Tensor:
            part = slice(start, start + width)
            projected = functional.linear(z, weight[part], None if bias is None else bias[part])
            return projected.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)

        return attn.q_norm(heads(0)) * attn.scale, attn.k_norm(heads(width))

    def _finish(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        normed = self.model.norm(hidden)
        return normed, self.model.forward_head(normed, pre_logits=True)


def _attention_input(block: Any, hidden: Tensor) -> Tensor:
    """Return what the attention of ``block`` sees of the residual stream.

    Raises:
        BackboneError: a kind of block whose order of norm and attention is not known here.
    """
    plain = type(block.attn) is Attention
    if plain and isinstance(block, Block):
        return block.norm1(hidden)
    if plain and isinstance(block, ResPostBlock):  # the norm comes after the attention
        return hidden
    raise BackboneError(
        f"the attention of a {type(block).__name__} with {type(block.attn).__name__} cannot be "
        "read, only its tokens; write an adapter of your own for it (docs/backbones.md)"
    )


def load_timm(settings: BackboneSettings, device: torch.device) -> TimmBackbone:
    """Build the backbone of the zoo's name or timm's own, with its weights, on ``device``.

    Raises:
        BackboneError: unknown name, weights that cannot be had, a block or size it does not have.
    """
    entry = ZOO.get(settings.name)
    name = entry.timm_name if entry else settings.name
    resolution = settings.resolution or (entry.resolution if entry else None)
    activation = settings.activation or (entry.activation if entry else None)
    model = build_timm(name, resolution, activation)
    default = entry.layer if entry else None
    layer = designated_layer(settings.layer, default, len(model.blocks), settings.name)
    path = settings.weights or _published(model, settings.name)
    load_weights(
        model,
        path,
        name=settings.name,
        native_grid=native_grid(model),
        positions=position_method(settings),
    )
    found = _configuration(model)
    full_name = ".".join(filter(None, [found["architecture"], found["tag"]]))
    # what is not the release must not go by the release's name
    full_name = full_name if entry is None or entry.is_release else settings.name
    site = timm_site(model, full_name, weights_checksum(path), layer)
    preprocessing = entry.preprocessing if entry else timm_preprocessing(model)
    if settings.crop_share:
        preprocessing = replace(preprocessing, crop_share=settings.crop_share)
    origin = PACKAGED[settings.name].origin if settings.name in PACKAGED else None
    return TimmBackbone(model.to(device).eval(), site, preprocessing, settings.precision, origin)


def timm_site(model: VisionTransformer, name: str, weights: str, layer: int) -> Site:
    """Return where a model is read: block ``layer``, counted from 1."""
    grid, patch = model.patch_embed.grid_size, model.patch_embed.patch_size
    assert grid is not None, "built for a size"
    return Site(name, weights, layer, int(model.embed_dim), grid[0], patch[0])


def build_timm(
    name: str, resolution: int | None = None, activation: Gelu | None = None
) -> VisionTransformer:
    """Return the architecture of timm's ``name`` for an input side, weights not yet there.

    Raises:
        BackboneError: no such model, not a plain vision transformer, or a size it cannot take.
    """
    chosen: dict[str, Any] = {"img_size": resolution, "act_layer": activation}
    options = {key: value for key, value in chosen.items() if value is not None}
    _require_known(name)
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")  # a deprecated name is still a name
            model = timm.create_model(name, pretrained=False, **options)
    except Exception as error:  # timm's constructors raise what they like
        raise BackboneError(f"timm cannot build {name} with {options}: {error}") from None
    if not isinstance(model, VisionTransformer):
        raise BackboneError(
            f"{name} is a {type(model).__name__}, not a plain vision transformer (timm's "
            "VisionTransformer); write an adapter of your own (docs/backbones.md)"
        )
    size = model.patch_embed.img_size
    assert size is not None and size[0] == size[1]
    # timm builds a smaller grid without a word, and fails at the first image
    whole_grid(int(size[0]), model.patch_embed.patch_size[0], name)
    return model.eval()


def native_grid(model: VisionTransformer) -> tuple[int, int]:
    """Return the patch grid at which a model's published weights were trained."""
    patch = model.patch_embed.patch_size[0]
    _, height, width = _configuration(model)["input_size"]
    return height // patch, width // patch


def timm_preprocessing(model: VisionTransformer) -> Preprocessing:
    """Return the preprocessing of timm's own configuration of a model."""
    found = _configuration(model)
    mean, std = tuple(found["mean"]), tuple(found["std"])
    return Preprocessing(crop_share=float(found["crop_pct"]), mean=mean, std=std)


def _require_known(name: str) -> None:
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise nearest_name(name, timm.list_models(module="vision_transformer"))
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        raise BackboneError(f"timm's {base} has no weights '{tag}'; it has: {', '.join(tags)}")


def _published(model: VisionTransformer, name: str) -> Path:
    return require_fetched(name) if name in PACKAGED else _from_hub(model, name)


def _from_hub(model: VisionTransformer, name: str) -> Path:
    repo, revision = split_revision(_configuration(model).get("hf_hub_id"))
    if not repo:
        raise unfetched(name, "timm knows no repository for it")
    return fetch_weights(repo, name=name, revision=revision)


def _configuration(model: VisionTransformer) -> dict[str, Any]:
    return dict(cast(Any, model.pretrained_cfg))
