"""A timm vision transformer seen from one block."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import Tensor
from torch.nn import functional

from vitscope.axes import ImageBatch
from vitscope.backbones.attention import QueryKeyAttention
from vitscope.backbones.backbone import BlockTokens, FinalOutput, Preprocessing, Site
from vitscope.backbones.pixels import standardise
from vitscope.backbones.precision import matmul_precision
from vitscope.backbones.settings import Precision
from vitscope.errors import BackboneError


@dataclass(frozen=True)
class TimmBackbone:
    """Tokens, attention and resumption at block L of a timm ``VisionTransformer``.

    Attributes:
        model: in evaluation mode, fp32, on its device.
        site: where it is read.
        preprocessing: how photographs are resized and normalised.
        precision: of the matrix products.
    """

    model: VisionTransformer
    site: Site
    preprocessing: Preprocessing
    precision: Precision = "fp32"

    @property
    def n_prefix(self) -> int:
        """CLS and register tokens."""
        return int(self.model.num_prefix_tokens)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def tokens(self, images: ImageBatch) -> BlockTokens:
        """Run exactly L blocks; the residual stream is returned before any final norm."""
        pixels = standardise(images, self.site, self.preprocessing, self.device)
        with matmul_precision(self.precision, self.device):
            return self._after(pixels, self.site.layer)

    @torch.inference_mode()
    def attention(self, images: ImageBatch) -> QueryKeyAttention:
        """Recompute queries and keys of block L from its input, in fp32: nothing else is kept."""
        pixels = standardise(images, self.site, self.preprocessing, self.device)
        with matmul_precision(self.precision, self.device):
            hidden = self._input_of(pixels, self.site.layer)
        block = self._blocks[self.site.layer - 1]
        query, key = query_and_key(block.attn, attention_input(block, hidden.float()))
        return QueryKeyAttention(query, key, self.n_prefix)

    @torch.inference_mode()
    def resume(self, tokens: BlockTokens) -> FinalOutput:
        """Run the blocks after L, the final norm and the pooling, as the plain forward does."""
        hidden = torch.cat([tokens.prefix, tokens.patch], 1)
        with matmul_precision(self.precision, self.device):
            for block in self._blocks[self.site.layer :]:
                hidden = block(hidden)
            hidden = self.model.norm(hidden)
            pooled = self.model.forward_head(hidden, pre_logits=True)
        return FinalOutput(patch=hidden[:, self.n_prefix :], pooled=pooled)

    @property
    def _blocks(self) -> Sequence[Any]:
        return cast(Sequence[Any], self.model.blocks)

    def _after(self, pixels: Tensor, layer: int) -> BlockTokens:
        out: Any = self.model.forward_intermediates(
            pixels,
            indices=[layer - 1],
            return_prefix_tokens=True,
            norm=False,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        # timm returns a bare tensor where there are no prefix tokens
        patch, prefix = out[0] if self.n_prefix else (out[0], out[0][:, :0])
        return BlockTokens(patch=patch.contiguous(), prefix=prefix.contiguous())

    def _input_of(self, pixels: Tensor, layer: int) -> Tensor:
        if layer == 1:
            model: Any = self.model
            return model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(pixels))))
        before = self._after(pixels, layer - 1)
        return torch.cat([before.prefix, before.patch], 1)


def attention_input(block: Any, hidden: Tensor) -> Tensor:
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


def query_and_key(attn: Any, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return queries, multiplied by the scale, and keys of a timm ``Attention``, [B, A, T, h]."""
    width = int(attn.num_heads * attn.head_dim)
    weight, bias = attn.qkv.weight, attn.qkv.bias

    def heads(start: int) -> Tensor:
        part = slice(start, start + width)
        projected = functional.linear(z, weight[part], None if bias is None else bias[part])
        return projected.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)

    return attn.q_norm(heads(0)) * attn.scale, attn.k_norm(heads(width))
