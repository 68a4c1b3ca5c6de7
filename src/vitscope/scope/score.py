"""``vitscope.score``: the whole scope score in memory, for notebooks and scripts."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitscope.backbones.backbone import Backbone
from vitscope.images.loading import worker_count
from vitscope.images.sources import ImageRef, ImageSet
from vitscope.images.verify import check_skips, verify_images
from vitscope.progress import track
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.storage import check_fits
from vitscope.scope.cds import Column, FeatureScores, summarise_pairs
from vitscope.scope.exemplars import NO_IMAGE, TopImages, codes_that_fit, wanted_by_image
from vitscope.scope.pairs import PairScores, ordered_pairs, score_stream
from vitscope.scope.partition import Partition, partition_features
from vitscope.scope.settings import Missing
from vitscope.scope.views import Overlap, plain_view, shifted_views
from vitscope.tokens.encoding import LoaderOptions, PassClock, encode_images

MAX_SKIPPED = 0.05


@dataclass(frozen=True)
class Scores:
    """Scope of a dictionary.

    Attributes:
        features: every figure, one entry per feature.
        pairs: every scored pair.
        images: the usable images; ``pairs.image`` points into them.
        seed: of the draws.
    """

    features: FeatureScores
    pairs: PairScores
    images: tuple[ImageRef, ...]
    seed: int

    @property
    def cds(self) -> Column:
        """Contextual Dependency Score [m]; NaN where a feature has no pair."""
        return self.features.cds

    @property
    def cds_se(self) -> Column:
        """Standard error of the score [m]."""
        return self.features.cds_se

    @property
    def n_pairs(self) -> NDArray[np.int64]:
        """Pairs behind each score [m]."""
        return self.features.n_pairs

    def partition(
        self,
        gamma: float | None = None,
        *,
        unscored: Literal["separate", "low"] = "separate",
    ) -> Partition:
        """Split the dictionary at γ, found in the histogram unless given."""
        return partition_features(self.cds, gamma=gamma, unscored=unscored)


def score(
    backbone: Backbone,
    sae: SparseAutoencoder,
    images: ImageSet,
    *,
    shift: int = 1,
    top_images: int = 16,
    missing: Missing = "max",
    min_pairs: int = 1,
    null_draws: int = 2,
    seed: int = 0,
    reading: LoaderOptions | None = None,
) -> Scores:
    """Score every feature of ``sae`` on ``images`` (protocol, sections 4 to 6).

    Args:
        backbone: read at its designated block.
        sae: trained there.
        images: a folder, a list or scenes; unusable files are left out.
        shift: s, in patches.
        top_images: exemplars per feature.
        missing: what a pair empty in exactly one view counts.
        min_pairs: with fewer a feature has no score.
        null_draws: random placements per pair; 0 leaves the null out.
        seed: of the null's draws.
        reading: batch size and decoding threads.

    Raises:
        SaeError: the SAE is of another width, model or block.
        ImageSetError: more than one image in twenty cannot be used.
    """
    check_fits(sae, backbone.site)
    reading = reading or LoaderOptions()
    verified = verify_images(images.refs, workers=reading.workers, max_pixels=reading.max_pixels)
    check_skips(verified, MAX_SKIPPED)
    refs, overlap = verified.usable, Overlap(backbone.site.grid, shift)
    top = find_exemplars(backbone, sae, refs, top_images, reading)
    feature, rank = (top.image != NO_IMAGE).nonzero(as_tuple=True)
    feature, rank, image = (part.cpu() for part in (feature, rank, top.image[feature, rank]))
    wanted = wanted_by_image(feature.numpy(), rank.numpy(), image.numpy())
    members = list(wanted)
    prepare = partial(shifted_views, site=backbone.site, shift=shift)
    if not members:
        pairs = PairScores.empty()
    else:
        with track("scoring", len(members), "images") as progress:

            def encoded() -> Iterator[tuple[Tensor, list[int], list[str]]]:
                wanted_refs = [refs[member] for member in members]
                for batch in encode_images(
                    backbone, wanted_refs, prepare, reading, clock=PassClock(), progress=progress
                ):
                    chosen = [members[index] for index in batch.indices]
                    yield batch.tokens.patch.float(), chosen, [refs[m].id for m in chosen]

            workers = worker_count(reading.workers)
            found, maps = score_stream(
                sae, encoded(), wanted, overlap, null_draws=null_draws, seed=seed, workers=workers
            )
            pairs = ordered_pairs(found, maps, workers=workers)
    features = summarise_pairs(pairs, sae.n_features, overlap.diameter, missing, min_pairs)
    return Scores(features, pairs, refs, seed)


def find_exemplars(
    backbone: Backbone,
    sae: SparseAutoencoder,
    refs: tuple[ImageRef, ...],
    k: int,
    reading: LoaderOptions,
) -> TopImages:
    """Return the ``k`` images on which each feature is strongest, over unshifted images."""
    top = TopImages.empty(sae.n_features, k)
    prepare = partial(plain_view, site=backbone.site, preprocessing=backbone.preprocessing)
    with track("exemplars", len(refs), "images") as progress:
        for batch in encode_images(
            backbone, refs, prepare, reading, clock=PassClock(), progress=progress
        ):
            patch = batch.tokens.patch.float()
            for some in codes_that_fit(len(patch), patch.shape[1], sae.n_features):
                codes = sae.to(patch.device).encode(patch[some].flatten(0, 1))
                strongest = codes.reshape(-1, patch.shape[1], sae.n_features).amax(1)
                top.update(strongest, torch.tensor(batch.indices[some]))
    return top
