"""Stage «gallery»: maps of some features of both groups, and of some images, to be looked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from vitscope.images.sources import ImageRef
from vitscope.scope.gallery import (
    GalleryChoice,
    GalleryFeature,
    TokenMaps,
    choose_gallery,
    exemplar_views,
    minimum_pairs,
    token_maps,
)
from vitscope.stages.partition import PartitionStage
from vitscope.stages.score import ScoreStage
from vitscope.stages.stage import Job, Stage
from vitscope.store.records import At
from vitscope.store.tables import Table

IMAGES_MAPPED = 4
"""Images of the maps of norms and awCDS."""


@dataclass(frozen=True)
class GalleryResult:
    """What a page shows of features and images: maps alone, photographs stay where they lie.

    Attributes:
        choice: the features, and the rule they were chosen by.
        maps: (feature, place among its images, view, cell): the activation there; ``image`` is the
            position of the photograph in the evaluation images, ``emd`` the distance of both views.
        tokens: (image, cell): norm and awCDS of the patch token.
    """

    choice: GalleryChoice
    maps: Annotated[Table, At("tables/gallery.parquet")]
    tokens: Annotated[Table, At("tables/token_maps.parquet")]


class GalleryStage(Stage[GalleryResult]):
    """Encodes the strongest images of a few features anew, so that pages need no model."""

    name = "gallery"
    after = ("backbone", "images", "train", "score", "partition")
    Result = GalleryResult

    def settings(self, job: Job) -> Mapping[str, Any]:
        """Return what decides which features are shown, and how images are cut."""
        return job.study.scope.model_dump(include={"top_images", "shift", "resize"})

    def run(self, job: Job) -> GalleryResult:
        """Choose features by their rank within their group, and images evenly over their order."""
        study, models, cut = job.study, job.models, job.result(PartitionStage)
        choice = choose_gallery(cut.scores, cut, minimum_pairs(study.scope.top_images))
        features = exemplar_views(
            models.backbone,
            models.sae,
            job.eval_refs,
            job.result(ScoreStage).scores,
            choice.features,
            shift=study.scope.shift,
            stretch=study.stretch,
            reading=job.options,
        )
        shown = spread_images(job.eval_refs, IMAGES_MAPPED)
        tokens = token_maps(
            models.backbone, models.sae, shown, cut.cds, stretch=study.stretch, reading=job.options
        )
        return GalleryResult(
            choice,
            Table(_columns_of_features(features, job.eval_positions)),
            Table(_columns_of_tokens(tokens, job.eval_positions)),
        )


def spread_images(refs: Sequence[ImageRef], n: int) -> tuple[ImageRef, ...]:
    """Return ``n`` of ``refs``, evenly spread over their order; all when there are fewer."""
    kept = min(n, len(refs))
    return tuple(refs[place * len(refs) // kept] for place in range(kept))


def _columns_of_features(
    features: Sequence[GalleryFeature], positions: Mapping[str, int]
) -> dict[str, NDArray[Any]]:
    """Return a row a cell, in the order of features, images, views, rows and columns."""
    places = [(f.feature, place, one) for f in features for place, one in enumerate(f.images)]
    maps = np.asarray([one.maps for *_, one in places])
    n_cells = int(np.prod(maps.shape[1:])) if places else 0
    n_views, side = (maps.shape[1], maps.shape[-1]) if places else (0, 0)
    view, row, column = np.indices((n_views, side, side)).reshape(3, -1)
    of_image = {
        "feature": [feature for feature, *_ in places],
        "place": [place for _, place, _ in places],
        "image": [positions[one.image_id] for *_, one in places],
        "emd": [one.emd for *_, one in places],
    }
    return {
        **{name: np.repeat(np.asarray(values), n_cells) for name, values in of_image.items()},
        **{
            name: np.tile(values, len(places))
            for name, values in (("view", view), ("row", row), ("column", column))
        },
        "activation": maps.ravel(),
    }


def _columns_of_tokens(
    tokens: Sequence[TokenMaps], positions: Mapping[str, int]
) -> dict[str, NDArray[Any]]:
    side = tokens[0].norms.shape[-1]
    row, column = np.indices((side, side)).reshape(2, -1)
    return {
        "image": np.repeat([positions[one.image_id] for one in tokens], side * side),
        "row": np.tile(row, len(tokens)),
        "column": np.tile(column, len(tokens)),
        "norm": np.concatenate([one.norms.ravel() for one in tokens]),
        "awcds": np.concatenate([one.awcds.ravel() for one in tokens]),
    }
