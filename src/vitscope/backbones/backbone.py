"""What vitscope asks of a vision transformer: tokens, attention and resumption at one block."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from vitscope.axes import ImageBatch
from vitscope.backbones.attention import BlockAttention


@dataclass(frozen=True)
class Preprocessing:
    """How a photograph becomes the backbone's input, before normalisation.

    Attributes:
        crop_share: share of the resized image that the centre crop keeps (timm's ``crop_pct``).
        mean: subtracted per RGB channel, after scaling bytes to [0, 1].
        std: divided by, per RGB channel.
    """

    crop_share: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Site:
    """Where activations are read: recorded with every SAE and shard, compared before use.

    Attributes:
        model: the backbone's full name, weights' tag included.
        weights: hash of the weights' file, or ``hub:`` and the name they were fetched by.
        layer: 1-based block; the site is its output residual stream, patch tokens only.
        width: d.
        grid: p, patches per side.
        patch: n, pixels per patch side.
    """

    model: str
    weights: str
    layer: int
    width: int
    grid: int
    patch: int

    @property
    def n_patches(self) -> int:
        """Patch tokens per view, p²."""
        return self.grid * self.grid

    @property
    def resolution(self) -> int:
        """Input side in pixels, p·n."""
        return self.grid * self.patch


@dataclass(frozen=True)
class BlockTokens:
    """Output residual stream of the designated block, before any final norm.

    Attributes:
        patch: patch tokens, row-major.
        prefix: CLS and register tokens; ``n_prefix`` may be 0.
    """

    patch: Float[Tensor, "B P d"]
    prefix: Float[Tensor, "B n_prefix d"]


@dataclass(frozen=True)
class FinalOutput:
    """What the backbone makes of the tokens of the designated block.

    Attributes:
        patch: patch tokens after the last block and the final norm.
        pooled: the image embedding before any classifier.
    """

    patch: Float[Tensor, "B P d"]
    pooled: Float[Tensor, "B d_pooled"]


@runtime_checkable
class Backbone(Protocol):
    """A vision transformer seen from one block: two facts and three methods.

    Images come as bytes ``[B, 3, p·n, p·n]``: each adapter normalises them itself, so that two
    views cut from one image stay identical pixel for pixel up to here.
    """

    @property
    def site(self) -> Site:
        """Where this backbone is read."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """How photographs are resized and normalised."""
        ...

    def tokens(self, images: ImageBatch) -> BlockTokens:
        """Run the blocks up to the designated one, and no further."""
        ...

    def attention(self, images: ImageBatch) -> BlockAttention:
        """Softmax probabilities of the designated block, by row, in fp32."""
        ...

    def resume(self, tokens: BlockTokens) -> FinalOutput:
        """Run the blocks after the designated one on ``tokens``, edited or not."""
        ...


@dataclass(frozen=True)
class WeightsOrigin:
    """Whose a backbone's weights are; kept with every result where they are known to be another's.

    Attributes:
        source: where they were published, and what was done to them.
        licence: of theirs, and of what they were made from.
        note: what must not be mistaken; empty where there is nothing.
    """

    source: str
    licence: str
    note: str = ""

    def describe(self) -> str:
        """Return all of it in one line."""
        return "; ".join(filter(None, [self.source, self.licence, self.note]))


@dataclass(frozen=True)
class BackboneDescription:
    """What stages that compute on tables need of a backbone, so that they need not load one.

    Attributes:
        site: where it is read.
        preprocessing: how photographs are resized and normalised.
        n_parameters: as :func:`count_parameters`.
        origin: whose the weights are, where the adapter keeps it as ``origin``.
    """

    site: Site
    preprocessing: Preprocessing
    n_parameters: int | None
    origin: WeightsOrigin | None = None


def describe_backbone(backbone: Backbone) -> BackboneDescription:
    """Return what is to be known of a loaded backbone once it is gone from memory."""
    origin = getattr(backbone, "origin", None)
    return BackboneDescription(
        backbone.site,
        backbone.preprocessing,
        count_parameters(backbone),
        origin if isinstance(origin, WeightsOrigin) else None,
    )


def count_parameters(backbone: Backbone) -> int | None:
    """Return the number of parameters of the backbone's vision model, all blocks and its pooling.

    Counted where the adapter keeps a torch module as ``model``, or is one itself; None elsewhere,
    as for ``planted``, which has no weights. Text towers are no part of a backbone.
    """
    model = getattr(backbone, "model", backbone)
    if not isinstance(model, nn.Module):
        return None
    return sum(parameter.numel() for parameter in model.parameters())
