"""Does a backbone keep the protocol? Asked once, on two made-up images, before hours of work."""

import torch

from vitscope.backbones.backbone import Backbone, BlockTokens
from vitscope.draws import generator
from vitscope.errors import BackboneError

ROW_SUM_TOLERANCE = 1e-4
AGREEMENT = 1e-3
"""Largest relative difference between an image's tokens alone and beside another."""


@torch.inference_mode()
def check_backbone(backbone: Backbone) -> Backbone:
    """Run a backbone's three methods on two images of noise; return it when it keeps its word.

    Checked: shapes and types of what the methods return; that tokens are finite, do not depend on
    the rest of the batch, and differ between different images; that rows of attention are
    probabilities.

    Raises:
        BackboneError: naming the method, what it returned and what it should have.
    """
    site = backbone.site
    shape = (2, 3, site.resolution, site.resolution)
    noise = generator(0, "conformance").integers(0, 256, shape, dtype="uint8")
    images = torch.from_numpy(noise)
    tokens = backbone.tokens(images)
    _check_tokens(backbone, tokens)
    alone = backbone.tokens(images[:1])
    scale = tokens.patch.abs().max()
    if not bool((alone.patch[0] - tokens.patch[0]).abs().max() <= AGREEMENT * scale):
        raise _broken(backbone, "tokens() of an image depend on the other images of the batch")
    if bool((tokens.patch[0] == tokens.patch[1]).all()):
        raise _broken(backbone, "tokens() of two different images are the same")
    _check_attention(backbone, images, n_prefix=tokens.prefix.shape[1])
    final = backbone.resume(tokens)
    if final.patch.shape[:2] != tokens.patch.shape[:2] or final.pooled.shape[:1] != (2,):
        raise _broken(
            backbone,
            f"resume() returned patch {list(final.patch.shape)} and pooled "
            f"{list(final.pooled.shape)} for {list(tokens.patch.shape)} patch tokens",
        )
    return backbone


def _check_tokens(backbone: Backbone, tokens: BlockTokens) -> None:
    site, patch, prefix = backbone.site, tokens.patch, tokens.prefix
    wanted = (2, site.n_patches, site.width)
    if tuple(patch.shape) != wanted:
        raise _broken(backbone, f"tokens().patch is {list(patch.shape)}, wanted {list(wanted)}")
    if prefix.ndim != 3 or (prefix.shape[0], prefix.shape[2]) != (2, site.width):
        raise _broken(
            backbone, f"tokens().prefix is {list(prefix.shape)}, wanted [2, n_prefix, {site.width}]"
        )
    if not patch.is_floating_point() or not bool(patch.isfinite().all()):
        raise _broken(backbone, f"tokens().patch ({patch.dtype}) is not all finite numbers")


def _check_attention(backbone: Backbone, images: torch.Tensor, *, n_prefix: int) -> None:
    attention, n_patches = backbone.attention(images), backbone.site.n_patches
    if attention.n_prefix != n_prefix or attention.n_tokens != n_prefix + n_patches:
        raise _broken(
            backbone,
            f"attention() has {attention.n_prefix} prefix tokens of {attention.n_tokens}, "
            f"tokens() has {n_prefix} of {n_prefix + n_patches}",
        )
    rows = attention.rows(torch.tensor([n_prefix]))
    expected = (2, rows.shape[1], 1, n_prefix + n_patches)
    if tuple(rows.shape) != expected or rows.dtype != torch.float32:
        raise _broken(
            backbone,
            f"attention().rows() is {rows.dtype} {list(rows.shape)}, wanted torch.float32 "
            f"[2, heads, 1, {n_prefix + n_patches}]",
        )
    if bool((rows < 0).any()) or not bool(((rows.sum(-1) - 1).abs() <= ROW_SUM_TOLERANCE).all()):
        raise _broken(backbone, "attention().rows() are not probabilities over the keys")


def _broken(backbone: Backbone, what: str) -> BackboneError:
    return BackboneError(f"{backbone.site.model}: {what}")
