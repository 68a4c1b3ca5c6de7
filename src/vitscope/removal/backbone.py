"""A backbone whose designated block gives out tokens without a group of features."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vitscope.axes import ImageBatch
from vitscope.backbones.attention import BlockAttention
from vitscope.backbones.backbone import Backbone, BlockTokens, FinalOutput, Preprocessing, Site
from vitscope.errors import BackboneError
from vitscope.removal.remove import FeatureGroup, group_mask, remove
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.storage import check_fits


@dataclass(frozen=True)
class RemovedBackbone:
    """Wraps a backbone: patch tokens leave the designated block without a group of features.

    CLS and register tokens pass untouched; so does the block's attention, which is computed from
    the block's input. ``resume`` runs the later blocks on whatever it is given.

    Attributes:
        backbone: the one wrapped, as it was.
        sae: the dictionary, read at the backbone's site.
        group: feature indices, or one boolean per feature.
        keep_error: as of :func:`vitscope.removal.remove.remove`.

    Raises:
        SaeError: the SAE belongs to another site, or the group does not fit it.
    """

    backbone: Backbone
    sae: SparseAutoencoder
    group: FeatureGroup
    keep_error: bool = True

    def __post_init__(self) -> None:
        check_fits(self.sae, self.backbone.site)
        group_mask(self.group, self.sae.n_features)

    @property
    def site(self) -> Site:
        """The wrapped backbone's."""
        return self.backbone.site

    @property
    def preprocessing(self) -> Preprocessing:
        """The wrapped backbone's."""
        return self.backbone.preprocessing

    def tokens(self, images: ImageBatch) -> BlockTokens:
        """Return the designated block's tokens, the patch tokens without the group."""
        plain = self.backbone.tokens(images)
        return BlockTokens(self._without(plain.patch), plain.prefix)

    def attention(self, images: ImageBatch) -> BlockAttention:
        """Return the wrapped backbone's attention: removal comes after it."""
        return self.backbone.attention(images)

    def resume(self, tokens: BlockTokens) -> FinalOutput:
        """Run the wrapped backbone's later blocks."""
        return self.backbone.resume(tokens)

    def _without(self, patch: Tensor) -> Tensor:
        return remove(self.sae, patch, self.group, keep_error=self.keep_error)


@contextmanager
def removed(
    backbone: Backbone, sae: SparseAutoencoder, group: FeatureGroup, *, keep_error: bool = True
) -> Generator[None]:
    """Inside the ``with``, the forward pass of the backbone's own model runs without the group.

    A hook on the designated block edits its patch tokens, so that ``backbone.tokens``,
    ``backbone.resume`` after it, and a plain call of ``backbone.model`` all see the removal; CLS
    and register tokens are untouched. For a backbone without such a module wrap it in
    :class:`RemovedBackbone`, which needs none.

    Raises:
        BackboneError: the backbone has no block to hook.
        SaeError: the SAE belongs to another site, or the group does not fit it.
    """
    check_fits(sae, backbone.site)
    mask = group_mask(group, sae.n_features)
    block, n_prefix = _designated_block(backbone)

    def edit(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        edited = output.clone()
        edited[:, n_prefix:] = remove(sae, output[:, n_prefix:], mask, keep_error=keep_error)
        return edited

    handle = block.register_forward_hook(edit)
    try:
        yield
    finally:
        handle.remove()


def _designated_block(backbone: Any) -> tuple[Any, int]:
    """Return the module of the designated block, and the number of prefix tokens."""
    model, layer = getattr(backbone, "model", None), backbone.site.layer
    family = getattr(backbone, "family", None)
    blocks = getattr(model, "blocks", None) if family is None else family.blocks_of(model)
    n_prefix = getattr(backbone, "n_prefix", None)
    if blocks is None or n_prefix is None:
        raise BackboneError(
            f"{type(backbone).__name__} has no module for block {layer} that could be edited in "
            "place; use RemovedBackbone(backbone, sae, group), which wraps any backbone"
        )
    return blocks[layer - 1], int(n_prefix)
