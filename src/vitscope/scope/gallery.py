"""What people look at: features chosen by a rule, their strongest images, and tokens of images.

Features are chosen over each group's CDS range, not by eye. Of a feature both views of its
strongest images are shown, with its map over each; of an image the norm and awCDS of every patch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from vitscope.axes import Reals
from vitscope.backbones.backbone import Backbone
from vitscope.images.sources import ImageRef
from vitscope.progress import track
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.storage import check_fits
from vitscope.scope.awcds import token_scope
from vitscope.scope.cds import FeatureScores
from vitscope.scope.pairs import PairScores
from vitscope.scope.views import Overlap, plain_view, shifted_views
from vitscope.tokens.encoding import LoaderOptions, PassClock, encode_images

PER_GROUP = 9
"""Features shown of each group."""

FEWEST_PAIRS = 3
"""Below this a mean over pairs says too little, however few exemplars were asked for."""

IMAGES_PER_FEATURE = 3
"""Strongest images shown of each feature."""


class Groups(Protocol):
    """A dictionary that was split: features with CDS ≤ γ, and features with CDS > γ."""

    @property
    def low(self) -> NDArray[np.int64]: ...  # noqa: D102

    @property
    def high(self) -> NDArray[np.int64]: ...  # noqa: D102


@dataclass(frozen=True)
class GalleryChoice:
    """The features to show, and the rule they were chosen by.

    Attributes:
        low: low-CDS features, CDS ascending; at most ``per_group``.
        high: high-CDS features, CDS ascending; at most ``per_group``.
        n_low: low-CDS features with enough pairs to be chosen.
        n_high: high-CDS features with enough pairs to be chosen.
        min_pairs: what «enough» is.
        per_group: features wanted of each group.
    """

    low: tuple[int, ...]
    high: tuple[int, ...]
    n_low: int
    n_high: int
    min_pairs: int
    per_group: int

    @property
    def features(self) -> tuple[int, ...]:
        """All of them, low-CDS first."""
        return self.low + self.high


def minimum_pairs(top_images: int) -> int:
    """Return the fewest pairs that earn a place: half of the exemplars asked for, at least 3."""
    return max(FEWEST_PAIRS, math.ceil(top_images / 2))


def choose_gallery(
    scores: FeatureScores, partition: Groups, min_pairs: int, n: int = PER_GROUP
) -> GalleryChoice:
    """Choose ``n`` features of each group, from its lowest CDS to its highest.

    A group's features with at least ``min_pairs`` pairs are sorted by CDS (then by index), and
    those at evenly spaced ranks are taken, the two ends included.
    """
    low, n_low = _spread(scores, partition.low, min_pairs, n)
    high, n_high = _spread(scores, partition.high, min_pairs, n)
    return GalleryChoice(low, high, n_low, n_high, min_pairs, n)


def _spread(
    scores: FeatureScores, group: NDArray[np.int64], min_pairs: int, n: int
) -> tuple[tuple[int, ...], int]:
    enough = (scores.n_pairs[group] >= min_pairs) & np.isfinite(scores.cds[group])
    eligible = group[enough]
    ordered = eligible[np.lexsort((eligible, scores.cds[eligible]))]
    if ordered.size > n:
        ranks = np.round(np.linspace(0, ordered.size - 1, n)).astype(np.int64)
        ordered = ordered[ranks]
    return tuple(int(feature) for feature in ordered), int(eligible.size)


@dataclass(frozen=True)
class GalleryImage:
    """One exemplar image of a feature, as both views show it.

    Attributes:
        image_id: id of the image in its set.
        views: the two views, bytes [2, 3, H, W].
        maps: the feature's activation on the whole grid of each view, [2, p, p].
        emd: distance in patches between the maps on the overlap; NaN unless both have mass there.
    """

    image_id: str
    views: NDArray[np.uint8]
    maps: Reals
    emd: float

    def on_overlap(self, shift: int) -> tuple[Reals, Reals]:
        """Return the maps [q, q] of what the views share, as view 1 and as view 2 see it."""
        side = self.maps.shape[-1] - shift
        return self.maps[0][shift:, shift:], self.maps[1][:side, :side]


@dataclass(frozen=True)
class GalleryFeature:
    """A feature on show, with its strongest images first."""

    feature: int
    images: tuple[GalleryImage, ...]


def exemplar_views(
    backbone: Backbone,
    sae: SparseAutoencoder,
    images: Sequence[ImageRef],
    pairs: PairScores,
    features: Sequence[int],
    *,
    shift: int = 1,
    stretch: bool = False,
    per_feature: int = IMAGES_PER_FEATURE,
    reading: LoaderOptions | None = None,
) -> tuple[GalleryFeature, ...]:
    """Encode both views of each feature's strongest images anew, every image once.

    Args:
        backbone: the one that was scored.
        sae: the one that was scored.
        images: the scored images, into which ``pairs.image`` points (``Scores.images``).
        pairs: every scored pair (``Scores.pairs``).
        features: which to show, in this order; one without pairs has no images.
        shift: s, in patches: that of the scores.
        stretch: whether images were stretched to the square rather than cropped.
        per_feature: images of each: the strongest, those last on whose shared content the feature
            is silent in both views, for they say nothing of its scope.
        reading: batch size and decoding threads.
    """
    site, reading = backbone.site, reading or LoaderOptions()
    Overlap(site.grid, shift)  # refuses a shift that leaves no overlap
    rows = _shown_rows(pairs, features, per_feature)
    members = np.unique(pairs.image[rows])
    shown: dict[int, dict[int, GalleryImage]] = {int(j): {} for j in features}
    prepare = partial(shifted_views, site=site, shift=shift, stretch=stretch)
    with track("gallery", len(members), "images") as progress:
        for batch in encode_images(
            backbone,
            [images[int(member)] for member in members],
            prepare,
            reading,
            clock=PassClock(),
            progress=progress,
        ):
            for place, index in enumerate(batch.indices):
                both = slice(2 * place, 2 * place + 2)
                views, tokens = batch.pixels[both].numpy(), batch.tokens.patch[both].float()
                own = rows[pairs.image[rows] == members[index]]
                wanted = torch.from_numpy(pairs.feature[own])
                # a signed top-k has negative codes, which are no presence of the feature
                codes = sae.to(tokens.device).encode(tokens.flatten(0, 1), wanted).clamp_min(0)
                maps = codes.T.reshape(-1, 2, site.grid, site.grid).double().cpu().numpy()
                name = images[int(members[index])].id
                for pair, map_ in zip(own, maps, strict=True):
                    found = GalleryImage(name, views, map_, float(pairs.emd[pair]))
                    shown[int(pairs.feature[pair])][int(pair)] = found
    return tuple(
        GalleryFeature(j, tuple(found[int(pair)] for pair in rows if int(pair) in found))
        for j, found in shown.items()
    )


def _shown_rows(pairs: PairScores, features: Sequence[int], per_feature: int) -> NDArray[np.int64]:
    """Return the rows of ``pairs`` to show, at most ``per_feature`` of each feature."""
    rows = np.flatnonzero(np.isin(pairs.feature, features))
    says_nothing = ~(pairs.kept | pairs.missed)[rows]
    rows = rows[np.lexsort((pairs.rank[rows], says_nothing, pairs.feature[rows]))]
    starts = np.flatnonzero(np.diff(pairs.feature[rows], prepend=-1))
    place = np.arange(rows.size) - np.repeat(starts, np.diff(np.append(starts, rows.size)))
    return rows[place < per_feature]


@dataclass(frozen=True)
class TokenMaps:
    """One image, patch by patch.

    Attributes:
        image_id: id of the image in its set.
        view: what the backbone saw, bytes [3, H, W].
        norms: L2 norm of each patch token at the designated block, [p, p].
        awcds: its activation-weighted CDS; NaN without an active feature that has a score, [p, p].
    """

    image_id: str
    view: NDArray[np.uint8]
    norms: Reals
    awcds: Reals


def token_maps(
    backbone: Backbone,
    sae: SparseAutoencoder,
    images: Sequence[ImageRef],
    cds: Reals,
    *,
    stretch: bool = False,
    reading: LoaderOptions | None = None,
) -> tuple[TokenMaps, ...]:
    """Encode ``images`` unshifted and weigh the scores ``cds`` [m] on each patch token.

    Args:
        backbone: read at its designated block.
        sae: trained there.
        images: verified images.
        cds: score of every feature, NaN where it has none.
        stretch: whether images are stretched to the square rather than cropped.
        reading: batch size and decoding threads.

    Raises:
        SaeError: the SAE is of another width, model or block.
    """
    check_fits(sae, backbone.site)
    scores, side = torch.from_numpy(cds.astype(np.float64)), backbone.site.grid
    prepare = partial(
        plain_view,
        site=backbone.site,
        preprocessing=backbone.preprocessing,
        stretch=stretch,
    )
    found: list[TokenMaps] = []
    with track("token maps", len(images), "images") as progress:
        for batch in encode_images(
            backbone,
            images,
            prepare,
            reading or LoaderOptions(),
            clock=PassClock(),
            progress=progress,
        ):
            for place, index in enumerate(batch.indices):
                tokens = batch.tokens.patch[place].float()
                codes = sae.to(tokens.device).encode(tokens).clamp_min(0)
                weighed = token_scope(codes, scores.to(tokens.device)).awcds
                found.append(
                    TokenMaps(
                        image_id=images[index].id,
                        view=batch.pixels[place].numpy(),
                        norms=tokens.norm(dim=-1).double().cpu().numpy().reshape(side, side),
                        awcds=weighed.cpu().numpy().reshape(side, side),
                    )
                )
    return tuple(found)
