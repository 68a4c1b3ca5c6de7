"""Stage «zeroshot»: predictions by text with and without each group."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from vitscope.errors import ConfigError
from vitscope.probes.labelled_images import LabelledImages, open_zero_shot
from vitscope.probes.prompts import Prompts
from vitscope.probes.results import ZeroShotSummary
from vitscope.probes.settings import ClassificationSettings
from vitscope.probes.text_towers import load_prompts_of, load_tower, require_tower
from vitscope.probes.zero_shot import (
    ZERO_SHOT_LABEL,
    Predictions,
    ZeroShot,
    flips_by_class,
    per_image,
    summarise,
)
from vitscope.progress import track
from vitscope.removal.remove import FeatureGroup
from vitscope.stages.probe import beside_original, extraction
from vitscope.stages.removal_groups import RemovedGroups, removed_groups
from vitscope.stages.stage import Job, Stage
from vitscope.store.parts import shared_parts
from vitscope.store.records import At
from vitscope.store.tables import Table
from vitscope.study import Study

PREDICTED_CHUNK = 512
"""Images between two saved parts: what a kill may cost."""


@dataclass(frozen=True)
class ZeroShotResult:
    """Predictions by text.

    Attributes:
        removed: the variants of the tokens.
        n_images: predicted.
        classes: to choose from.
        variants: accuracy, confidence, reliability and flips, the original first.
        predictions: (variant, image): what was predicted, how surely.
        flips: (variant, class): how many predictions changed.
    """

    removed: RemovedGroups
    n_images: int
    classes: tuple[str, ...]
    variants: tuple[ZeroShotSummary, ...]
    predictions: Annotated[Table, At("predictions.parquet")]
    flips: Annotated[Table, At("tables/flips.parquet")]


class ZeroShotStage(Stage[ZeroShotResult]):
    """Predicts the class of every image by its text, from each variant of the tokens."""

    name = "zeroshot"
    after = ("backbone", "train", "partition")
    shared = True
    Result = ZeroShotResult

    def is_wanted(self, study: Study) -> bool:
        """Whether the study names images for zero-shot."""
        return study.probes.zeroshot.images is not None

    def check(self, study: Study) -> None:
        """Open the images, and read their prompts."""
        open_zero_shot_of(study)

    def settings(self, job: Job) -> Mapping[str, Any]:
        """Return the text side, and what is removed."""
        probes = job.study.probes
        names = {"tower", "tower_weights", "bins"}
        return {
            "keep_error": probes.keep_error,
            "n_controls": probes.n_controls,
            "prompts": asdict(open_zero_shot_of(job.study)[1]),
            **probes.zeroshot.model_dump(mode="json", include=names),
        }

    def inputs(self, job: Job) -> Mapping[str, str]:
        """Return the hash of the images."""
        images, _ = open_zero_shot_of(job.study)
        return {"images": f"{len(images)} {images.digest}"}

    def run(self, job: Job) -> ZeroShotResult:
        """Predict chunk by chunk."""
        images, prompts = open_zero_shot_of(job.study)
        removed, masks = removed_groups(job)
        predictions, labels = _predict(job, masks, prompts, images)
        rows = summarise(predictions, labels, bins=job.study.probes.zeroshot.bins)
        return ZeroShotResult(
            removed=removed,
            n_images=len(images),
            classes=prompts.classes,
            variants=tuple(rows),
            predictions=Table(per_image(predictions, labels, images.ids)),
            flips=Table(flips_by_class(predictions, labels, len(prompts.classes))),
        )

    def headline(self, result: ZeroShotResult) -> list[tuple[str, str]]:
        """Return the original beside what is left without each group."""
        accuracy = {row.variant: row.top1 for row in result.variants}
        confidence = {row.variant: row.confidence for row in result.variants}
        return [
            ("zero-shot, top1", beside_original(accuracy)),
            ("zero-shot, confidence", beside_original(confidence)),
        ]


def open_zero_shot_of(study: Study) -> tuple[LabelledImages, Prompts]:
    """Open the images of zero-shot and read their prompts.

    Raises:
        ConfigError: no images are named, the backbone has no text tower, or the prompts do not fit.
        ImageSetError: the images cannot be used as they are.
    """
    settings = study.probes.zeroshot
    if settings.images is None:
        raise ConfigError(
            "zero-shot has no images: set probes.zeroshot.images to scenes or ImageNet's root "
            "(docs/probes.md)"
        )
    require_tower(study.backbone, settings)
    images, classes = open_zero_shot(settings)
    return images, load_prompts_of(settings, classes)


def _predict(
    job: Job, masks: Mapping[str, FeatureGroup], prompts: Prompts, images: LabelledImages
) -> tuple[list[Predictions], NDArray[np.int64]]:
    """Predict chunk by chunk, through the disk."""
    tower = load_tower(job.study.backbone, job.study.probes.zeroshot, job.models.device)
    made = extraction(job, job.models.sae, masks, "classification", ClassificationSettings())
    zero_shot = ZeroShot.prepare(made, tower, prompts)
    n = len(images)
    chunks = [range(i, min(i + PREDICTED_CHUNK, n)) for i in range(0, n, PREDICTED_CHUNK)]
    with track(ZERO_SHOT_LABEL, n, "images") as progress:
        parts = list(
            shared_parts(
                job.run.parts(job.stage),
                job.fingerprint,
                chunks,
                lambda rows: zero_shot.predict(images, rows, progress),
                on_reuse=lambda rows: progress.skip(len(rows)),
                on_others=lambda rows: progress.advance(len(rows)),
            )
        )
    return zero_shot.joined(parts)
