"""What the adapters of timm and transformers share: blocks run one after another, up to L and on.

An adapter says where its model keeps its parts; counting blocks, standardising pixels and the
precision of matrix products are the same for all.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from vitscope.axes import ImageBatch
from vitscope.backbones.attention import QueryKeyAttention
from vitscope.backbones.backbone import BlockTokens, FinalOutput, Preprocessing, Site
from vitscope.backbones.settings import PENULTIMATE, Precision
from vitscope.errors import BackboneError

_HALF: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class BlockwiseBackbone(ABC):
    """Tokens, attention and resumption at block L of a model that is a stack of blocks.

    Attributes:
        model: the vision model, in evaluation mode, fp32, on its device.
        site: where it is read.
        preprocessing: how photographs are resized and normalised.
        precision: of the matrix products.
    """

    model: Any
    site: Site
    preprocessing: Preprocessing
    precision: Precision = "fp32"

    @property
    @abstractmethod
    def n_prefix(self) -> int:
        """CLS and register tokens."""

    @property
    @abstractmethod
    def blocks(self) -> Sequence[Any]:
        """The blocks, first to last."""

    @abstractmethod
    def _stem(self, pixels: Float32[Tensor, "B 3 H W"]) -> Tensor:
        """Return the input of the first block, [B, T, d]."""

    @abstractmethod
    def _through(self, hidden: Tensor, blocks: Sequence[Any]) -> Tensor:
        """Run ``blocks`` on tokens [B, T, d]."""

    @abstractmethod
    def _query_and_key(self, block: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries, multiplied by the scale, and keys of a block's input, [B, A, T, h]."""

    @abstractmethod
    def _finish(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised tokens, and the image embedding, from the last block's output."""

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def tokens(self, images: ImageBatch) -> BlockTokens:
        """Run exactly L blocks; the residual stream is returned before any final norm."""
        hidden = self._after(images, self.site.layer)
        n = self.n_prefix
        return BlockTokens(patch=hidden[:, n:].contiguous(), prefix=hidden[:, :n].contiguous())

    @torch.inference_mode()
    def attention(self, images: ImageBatch) -> QueryKeyAttention:
        """Recompute queries and keys of block L from its input, in fp32: nothing else is kept."""
        hidden = self._after(images, self.site.layer - 1).float()
        query, key = self._query_and_key(self.blocks[self.site.layer - 1], hidden)
        return QueryKeyAttention(query, key, self.n_prefix)

    @torch.inference_mode()
    def resume(self, tokens: BlockTokens) -> FinalOutput:
        """Run the blocks after L, the final norm and the pooling, as the model's own forward does.

        ``pooled`` is what the model itself gives a classifier: with transformers its
        ``pooler_output`` (for CLIP the normalised CLS token before the projection).
        """
        hidden = torch.cat([tokens.prefix, tokens.patch], 1)
        with matmul_precision(self.precision, self.device):
            normed, pooled = self._finish(self._through(hidden, self.blocks[self.site.layer :]))
        return FinalOutput(patch=normed[:, self.n_prefix :], pooled=pooled)

    def _after(self, images: ImageBatch, layer: int) -> Tensor:
        pixels = standardise(images, self.site, self.preprocessing, self.device)
        with matmul_precision(self.precision, self.device):
            return self._through(self._stem(pixels), self.blocks[:layer])


def standardise(
    images: ImageBatch, site: Site, preprocessing: Preprocessing, device: torch.device
) -> Float32[Tensor, "B 3 H W"]:
    """Return bytes as the network takes them, on its device: in [0, 1], then per channel.

    Raises:
        BackboneError: not bytes, or not of the site's resolution.
    """
    require_views(images, site)
    scaled = images.to(device).float() / 255
    mean = scaled.new_tensor(preprocessing.mean)[:, None, None]
    std = scaled.new_tensor(preprocessing.std)[:, None, None]
    return (scaled - mean) / std


def require_views(images: ImageBatch, site: Site) -> None:
    """Refuse images that are not bytes of the site's resolution.

    Raises:
        BackboneError: naming both shapes.
    """
    side = site.resolution
    if images.dtype != torch.uint8 or tuple(images.shape[1:]) != (3, side, side):
        raise BackboneError(
            f"{site.model} takes bytes [B, 3, {side}, {side}], got {images.dtype} "
            f"{list(images.shape)}; resize with the backbone's own preprocessing"
        )


@contextmanager
def matmul_precision(precision: Precision, device: torch.device) -> Generator[None]:
    """Run matrix products in ``precision``; weights and the residual stream stay fp32.

    ``fp32`` is meant literally: on CUDA the patch convolution would otherwise run in TF32.
    """
    if precision in _HALF:
        with torch.autocast(device.type, dtype=_HALF[precision]):
            yield
    elif device.type == "cuda":
        backend = torch.backends.cudnn
        kept = {name: getattr(backend, name) for name in ("enabled", "benchmark", "deterministic")}
        with backend.flags(**kept, allow_tf32=False):
            yield
    else:
        yield


def designated_layer(wanted: int | str | None, default: int | None, depth: int, name: str) -> int:
    """Return the 1-based block of ``wanted`` in a backbone of ``depth`` blocks.

    Args:
        wanted: from 1; negative from the end (-1 is the last block); ``penultimate``; None.
        default: what None means; None where the backbone has no designated block of its own.
        depth: number of blocks.
        name: the backbone, for messages.

    Raises:
        BackboneError: no such block, or none chosen where one must be.
    """
    if wanted is None:
        wanted = default
    if wanted is None:
        raise BackboneError(
            f"{name} has no designated block of its own: set backbone.layer (--layer) to one of "
            f"1..{depth}, to a negative number from the end, or to '{PENULTIMATE}'"
        )
    layer = -2 if wanted == PENULTIMATE else int(wanted)
    if layer < 0:
        layer += depth + 1
    if not 1 <= layer <= depth:
        raise BackboneError(
            f"backbone.layer = {wanted}, but {name} has {depth} blocks: give 1..{depth}, or "
            f"-{depth}..-1 from the end"
        )
    return layer


def whole_grid(side: int, patch: int, name: str) -> int:
    """Return p, patches per side of an input of ``side`` pixels.

    Raises:
        BackboneError: ``side`` is no multiple of ``patch``.
    """
    if side % patch:
        nearest = max(round(side / patch), 1) * patch
        raise BackboneError(
            f"backbone.resolution = {side} is no multiple of {patch}, the patch side of {name}; "
            f"the nearest is {nearest}"
        )
    return side // patch
