"""A vision transformer of Hugging Face ``transformers`` seen from one block."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitscope.axes import ImageBatch
from vitscope.backbones.attention import QueryKeyAttention
from vitscope.backbones.backbone import BlockTokens, FinalOutput, Preprocessing, Site
from vitscope.backbones.layers import designated_layer
from vitscope.backbones.pixels import standardise
from vitscope.backbones.precision import matmul_precision
from vitscope.backbones.settings import BackboneSettings, Precision
from vitscope.backbones.transformers_families import FAMILIES, Family
from vitscope.backbones.transformers_loading import load_model, require_transformers
from vitscope.backbones.transformers_pixels import saved_preprocessing
from vitscope.backbones.transformers_source import CONFIG, Source, find_source, read_json
from vitscope.errors import BackboneError


@dataclass(frozen=True)
class TransformersBackbone:
    """Tokens, attention and resumption at block L of a model of ``transformers``.

    Attributes:
        model: the vision model, in evaluation mode, fp32, on its device.
        family: where its parts are.
        site: where it is read.
        preprocessing: how photographs are resized and normalised.
        precision: of the matrix products.
    """

    model: Any
    family: Family
    site: Site
    preprocessing: Preprocessing
    precision: Precision = "fp32"

    @property
    def n_prefix(self) -> int:
        """CLS and register tokens."""
        return self.family.n_prefix(self.model)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def tokens(self, images: ImageBatch) -> BlockTokens:
        """Run exactly L blocks; the residual stream is returned before any final norm."""
        hidden = self._after(images, self.site.layer)
        return BlockTokens(hidden[:, self.n_prefix :].contiguous(), hidden[:, : self.n_prefix])

    @torch.inference_mode()
    def attention(self, images: ImageBatch) -> QueryKeyAttention:
        """Recompute queries and keys of block L from its input, in fp32: nothing else is kept."""
        hidden = self._after(images, self.site.layer - 1).float()
        block = self._blocks[self.site.layer - 1]
        query, key = self.family.query_and_key(block, hidden, self._positions())
        return QueryKeyAttention(query, key, self.n_prefix)

    @torch.inference_mode()
    def resume(self, tokens: BlockTokens) -> FinalOutput:
        """Run the blocks after L, the final norm and the pooling, as the model's own forward does.

        ``pooled`` is its ``pooler_output``: for CLIP the normalised CLS token before the
        projection, for SigLIP the attention-pooled one, else the normalised CLS token.
        """
        hidden = torch.cat([tokens.prefix, tokens.patch], 1)
        with matmul_precision(self.precision, self.device):
            hidden = self._through(hidden, self._blocks[self.site.layer :])
            normed, pooled = self.family.finish(self.model, hidden)
        return FinalOutput(patch=normed[:, self.n_prefix :], pooled=pooled)

    @property
    def _blocks(self) -> Sequence[Any]:
        return self.family.blocks_of(self.model)

    def _after(self, images: ImageBatch, layer: int) -> Tensor:
        pixels = standardise(images, self.site, self.preprocessing, self.device)
        resized = self.site.resolution != self.model.config.image_size
        with matmul_precision(self.precision, self.device):
            return self._through(
                self.family.stem(self.model, pixels, resized), self._blocks[:layer]
            )

    def _through(self, hidden: Tensor, blocks: Sequence[Any]) -> Tensor:
        positions = self._positions()
        for block in blocks:
            hidden = block(hidden, attention_mask=None, **positions)
        return hidden

    def _positions(self) -> dict[str, Any]:
        side = self.site.resolution
        return self.family.positions(self.model, torch.empty(1, 3, side, side, device=self.device))


def load_transformers(
    source: str, settings: BackboneSettings, device: torch.device
) -> TransformersBackbone:
    """Build the backbone of ``backbone.name = "transformers:SOURCE"``.

    Args:
        source: a hub's name, or a folder as ``save_pretrained`` leaves it. ``settings.weights``
            may name such a folder (or the file in it) to stand in for the hub.
        settings: layer, resolution, crop and precision. The resolution and crop that are not set
            are those of the folder's preprocessing, then of its configuration.
        device: where the weights go.

    Raises:
        BackboneError: ``transformers`` is not installed, nothing to load, a model of another kind,
            weights that are not exactly the model's, a block or size that it does not have.
    """
    require_transformers(settings.name)
    _refuse_settings(settings)
    found = find_source(source, settings.weights, name=settings.name)
    family = _family(found, settings.name)
    model = load_model(family, found, name=settings.name)
    depth = len(family.blocks_of(model))
    saved = saved_preprocessing(found.folder, family)
    grid, patch = _grid(model, settings, saved.side)
    site = Site(
        model=f"transformers:{found.label} ({family.model_class})",
        weights=found.weights,
        layer=designated_layer(settings.layer, None, depth, settings.name),
        width=int(model.config.hidden_size),
        grid=grid,
        patch=patch,
    )
    preprocessing = Preprocessing(
        settings.crop_share or saved.preprocessing.crop_share,
        saved.preprocessing.mean,
        saved.preprocessing.std,
    )
    return TransformersBackbone(model.to(device), family, site, preprocessing, settings.precision)


def _refuse_settings(settings: BackboneSettings) -> None:
    if settings.activation is not None:
        raise BackboneError(
            f"backbone.activation means nothing for {settings.name}: its {CONFIG} says which; "
            "remove it"
        )
    if settings.positions == "meta":
        raise BackboneError(
            f"backbone.positions = 'meta' means nothing for {settings.name}: transformers resizes "
            "position embeddings itself (bicubic); remove it"
        )


def _family(found: Source, name: str) -> Family:
    model_type = read_json(found.folder / CONFIG).get("model_type")
    if model_type not in FAMILIES:
        raise BackboneError(
            f"{name} is a transformers model of type '{model_type}'; supported: "
            f"{', '.join(FAMILIES)}. Others: an adapter of your own (docs/backbones.md)"
        )
    return FAMILIES[model_type]


def _grid(model: Any, settings: BackboneSettings, saved_side: int | None) -> tuple[int, int]:
    native, patch = model.config.image_size, model.config.patch_size
    if not isinstance(native, int) or not isinstance(patch, int):
        raise BackboneError(f"{settings.name} takes images or patches that are not square")
    side = settings.resolution or saved_side or native
    if side % patch:
        nearest = max(round(side / patch), 1) * patch
        raise BackboneError(
            f"backbone.resolution = {side} is no multiple of {patch}, the patch side of "
            f"{settings.name}; the nearest is {nearest}"
        )
    return side // patch, patch
