"""A feature on its strongest images: both views, its map over each, for people to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from vitscope.backbones.backbone import Backbone
from vitscope.images.sources import ImageRef
from vitscope.progress import track
from vitscope.sae.model import SparseAutoencoder
from vitscope.scope.pairs import PairScores
from vitscope.scope.views import Overlap, shifted_views
from vitscope.tokens.encoding import LoaderOptions, PassClock, encode_images

IMAGES_PER_FEATURE = 3
"""Strongest images shown of each feature."""


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
    maps: NDArray[np.float64]
    emd: float

    def on_overlap(self, shift: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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
