"""A timm vision transformer seen from one block."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Float32
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional

from vitscope.axes import ImageBatch
from vitscope.backbones.backbone import BlockTokens, FinalOutput, Preprocessing, Site
from vitscope.errors import BackboneError


@dataclass(frozen=True)
class TimmBackbone:
    """Tokens, attention and resumption at block L of a plain timm ViT (pre-norm, softmax).

    Attributes:
        model: in evaluation mode, on its device.
        site: where it is read.
        preprocessing: how photographs are resized and normalised.
    """

    model: VisionTransformer
    site: Site
    preprocessing: Preprocessing

    @property
    def n_prefix(self) -> int:
        """CLS and register tokens."""
        return int(self.model.num_prefix_tokens)

    @property
    def n_heads(self) -> int:
        """Attention heads of the designated block."""
        return int(self._block(self.site.layer).attn.num_heads)

    @torch.inference_mode()
    def tokens(self, images: ImageBatch) -> BlockTokens:
        """Run exactly L blocks; the residual stream is returned before any final norm."""
        return self._after(self.normalise(images), self.site.layer)

    @torch.inference_mode()
    def attention(self, images: ImageBatch) -> Float32[Tensor, "B A P T"]:
        """Recompute the probabilities of block L from its input, in fp32: nothing else is kept."""
        block = self._block(self.site.layer)
        hidden = self._input_of(self.normalise(images), self.site.layer)
        attn, z = block.attn, block.norm1(hidden)
        width = int(attn.num_heads * attn.head_dim)
        weight, bias = attn.qkv.weight, attn.qkv.bias

        def heads(rows: Tensor, start: int) -> Tensor:
            part = slice(start, start + width)
            projected = functional.linear(rows, weight[part], None if bias is None else bias[part])
            return projected.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)

        query = attn.q_norm(heads(z[:, self.n_prefix :], 0)) * attn.scale
        key = attn.k_norm(heads(z, width))
        return (query.float() @ key.float().transpose(-1, -2)).softmax(-1)

    @torch.inference_mode()
    def resume(self, tokens: BlockTokens) -> FinalOutput:
        """Run the blocks after L, the final norm and the pooling, as the plain forward does."""
        hidden = torch.cat([tokens.prefix, tokens.patch], 1)
        for block in self._blocks[self.site.layer :]:
            hidden = block(hidden)
        hidden = self.model.norm(hidden)
        pooled = self.model.forward_head(hidden, pre_logits=True)
        return FinalOutput(patch=hidden[:, self.n_prefix :], pooled=pooled)

    def normalise(self, images: ImageBatch) -> Float[Tensor, "B 3 H W"]:
        """Scale bytes to [0, 1] and standardise each channel."""
        side = self.site.resolution
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != (3, side, side):
            raise BackboneError(
                f"{self.site.model} takes bytes [B, 3, {side}, {side}], got {images.dtype} "
                f"{list(images.shape)}"
            )
        weight = self.model.patch_embed.proj.weight
        scaled = images.to(weight.device).to(weight.dtype) / 255
        mean = scaled.new_tensor(self.preprocessing.mean)[:, None, None]
        std = scaled.new_tensor(self.preprocessing.std)[:, None, None]
        return (scaled - mean) / std

    @property
    def _blocks(self) -> Sequence[Any]:
        return cast(Sequence[Any], self.model.blocks)

    def _block(self, layer: int) -> Any:
        return self._blocks[layer - 1]

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
