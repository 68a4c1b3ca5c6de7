"""Stage «zeroshot»: what the backbone predicts by text, with and without each group."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitscope.errors import ConfigError
from vitscope.probes.labelled import LabelledImages
from vitscope.probes.predicting import LABEL, ZeroShot
from vitscope.probes.prompts import Prompts
from vitscope.probes.settings import ClassificationSettings
from vitscope.probes.sources import open_zero_shot
from vitscope.probes.towers import load_prompts_of, load_tower, require_tower
from vitscope.probes.zero_shot import (
    Predictions,
    ZeroShotSummary,
    flips_by_class,
    per_image,
    summarise,
)
from vitscope.progress import track
from vitscope.stages.context import Context, StageOutcome
from vitscope.stages.probe import extraction
from vitscope.stages.removal_groups import RemovedGroups, removed_groups
from vitscope.store.atomic import write_json
from vitscope.store.stage import StageOutput
from vitscope.store.tables import write_table
from vitscope.study import Study
from vitscope.tokens.shared_parts import shared_parts

PER_IMAGE, PER_CLASS = "predictions.parquet", "flips"
"""One row per (variant, image) in the run directory, one per (variant, class) below ``tables``."""

CHUNK_IMAGES = 512
"""Images between two saved parts: what a kill may cost."""

_LABELS = "labels"


def zero_shot_is_set(study: Study) -> bool:
    """Whether the study names images for zero-shot."""
    return study.probes.zeroshot.images is not None


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


def run_zeroshot(context: Context) -> StageOutcome:
    """Write ``tables/zeroshot.json``, and predictions by image and flips by class."""
    study, run = context.study, context.run
    settings = study.probes.zeroshot
    images, prompts = open_zero_shot_of(study)

    def body(fingerprint: str) -> StageOutput:
        removed = removed_groups(context)
        predictions, labels = _predict(context, removed, prompts, images, fingerprint)
        source = {"stage": "zeroshot", "fingerprint": fingerprint, "classes": prompts.classes}
        files = [run.root / PER_IMAGE, run.columns(PER_CLASS), run.table("zeroshot")]
        write_table(files[0], per_image(predictions, labels, images.ids), source)
        by_class = flips_by_class(predictions, labels, len(prompts.classes))
        write_table(files[1], by_class, source)
        rows = summarise(predictions, labels, bins=settings.bins)
        table = removed.described() | {
            "n_images": len(images),
            "n_classes": len(prompts.classes),
            "variants": [asdict(row) for row in rows],
        }
        write_json(files[2], {"fingerprint": fingerprint, **table})
        return StageOutput(files, _summary(rows))

    return context.finish(
        "zeroshot",
        settings={
            "keep_error": study.probes.keep_error,
            "n_controls": study.probes.n_controls,
            "prompts": asdict(prompts),
            **settings.model_dump(mode="json", include={"tower", "tower_weights", "bins"}),
        },
        after=("train", "partition"),
        extra_inputs={
            "backbone": context.backbone_digest,
            "images": f"{len(images)} {images.digest}",
        },
        body=body,
        shared=True,
    )


def _predict(
    context: Context,
    removed: RemovedGroups,
    prompts: Prompts,
    images: LabelledImages,
    fingerprint: str,
) -> tuple[list[Predictions], NDArray[np.int64]]:
    """Predict chunk by chunk, through the disk."""
    study = context.study
    tower = load_tower(study.backbone, study.probes.zeroshot, context.device)
    made = extraction(
        context, context.sae, removed.masks, "classification", ClassificationSettings()
    )
    zero_shot = ZeroShot.prepare(made, tower, prompts)
    n = len(images)
    chunks = [range(i, min(i + CHUNK_IMAGES, n)) for i in range(0, n, CHUNK_IMAGES)]
    with track(LABEL, n, "images") as progress:
        parts = list(
            shared_parts(
                context.run.parts("zeroshot"),
                fingerprint,
                chunks,
                lambda rows: _to_tensors(*zero_shot.predict(images, rows, progress)),
                on_reuse=lambda rows: progress.skip(len(rows)),
                on_others=lambda rows: progress.advance(len(rows)),
            )
        )
    labels = torch.cat([part[_LABELS] for part in parts]).numpy()
    return [_joined(name, parts) for name in made.variants], labels


def _to_tensors(predictions: list[Predictions], labels: NDArray[np.int64]) -> dict[str, Tensor]:
    tensors = {_LABELS: torch.from_numpy(labels)}
    for one in predictions:
        tensors |= {
            f"{one.variant}/likeliest": torch.from_numpy(one.likeliest),
            f"{one.variant}/probability": torch.from_numpy(one.probability),
            f"{one.variant}/of_label": torch.from_numpy(one.of_label),
        }
    return tensors


def _joined(variant: str, parts: list[dict[str, Tensor]]) -> Predictions:
    names = ("likeliest", "probability", "of_label")
    arrays = [torch.cat([part[f"{variant}/{name}"] for part in parts]).numpy() for name in names]
    return Predictions(variant, *arrays)


def _summary(rows: list[ZeroShotSummary]) -> dict[str, Any]:
    return {
        row.variant: {
            "top1": row.top1,
            "confidence": row.confidence,
            "calibration_error": row.calibration.expected_error,
            "flips": row.flips,
        }
        for row in rows
    }
