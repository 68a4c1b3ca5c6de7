"""Zero-shot predictions and their confidence, with and without groups of features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitscope.axes import Float, ImageBatch
from vitscope.backbones.backbone import BlockTokens
from vitscope.errors import ConfigError
from vitscope.probes.calibration import Reliability, reliability
from vitscope.probes.features import ORIGINAL, Extraction
from vitscope.probes.text import TextTower
from vitscope.removal.remove import remove_groups

TOP = 5


@dataclass(frozen=True, eq=False)
class Predictions:
    """What one variant says of every image.

    Attributes:
        variant: of the tokens.
        likeliest: the five likeliest classes, likeliest first, [N, 5] (or all, if fewer).
        probability: of the likeliest class, [N].
        of_label: probability of the true class, [N].
    """

    variant: str
    likeliest: NDArray[np.int64]
    probability: NDArray[np.float64]
    of_label: NDArray[np.float64]

    @classmethod
    def of(
        cls, variant: str, logits: Float[Tensor, "N C"], labels: NDArray[np.int64]
    ) -> "Predictions":
        """Read them off the logits of all classes, by a softmax."""
        share = torch.softmax(logits.double(), -1)
        values, classes = share.topk(min(TOP, share.shape[1]), dim=-1)
        true = share.gather(1, torch.from_numpy(labels).to(share.device)[:, None])[:, 0]
        return cls(variant, classes.cpu().numpy(), values[:, 0].cpu().numpy(), true.cpu().numpy())

    @classmethod
    def joined(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """Put batches of one variant behind each other."""
        return cls(
            parts[0].variant,
            np.concatenate([part.likeliest for part in parts]),
            np.concatenate([part.probability for part in parts]),
            np.concatenate([part.of_label for part in parts]),
        )


@dataclass(frozen=True)
class ZeroShotSummary:
    """One variant, summed up.

    Attributes:
        variant: of the tokens.
        top1: share of images whose class is the likeliest.
        top5: share whose class is among the five likeliest.
        confidence: mean probability of the likeliest class.
        calibration: confidence against accuracy, by bin, and its expected error.
        flips: images whose prediction is not that of the original.
        flips_lost: those of them that the original had right.
        flips_won: those that are right now.
    """

    variant: str
    top1: float
    top5: float
    confidence: float
    calibration: Reliability
    flips: int
    flips_lost: int
    flips_won: int


@torch.inference_mode()
def variant_logits(
    extraction: Extraction,
    tower: TextTower,
    classes: Float[Tensor, "C e"],
    pixels: ImageBatch,
) -> dict[str, Float[Tensor, "B C"]]:
    """Return the logits of every class for every variant of a batch: one pass, one encoding.

    The later blocks run on from each variant's tokens: here the CLS token attends to what was
    edited, as prediction does.

    Args:
        extraction: backbone, SAE and groups.
        tower: of the backbone's own weights.
        classes: unit rows, one per class.
        pixels: bytes as the backbone takes them.
    """
    backbone = extraction.backbone
    plain = backbone.tokens(pixels)
    tokens = {ORIGINAL: plain.patch} | remove_groups(
        extraction.sae, plain.patch, extraction.groups, keep_error=extraction.keep_error
    )
    logits: dict[str, Tensor] = {}
    for name, patch in tokens.items():
        pooled = backbone.resume(BlockTokens(patch, plain.prefix)).pooled
        image = tower.project(pooled)
        logits[name] = tower.scale * image @ classes.to(image).T
    return logits


def summarise(
    predictions: Sequence[Predictions], labels: NDArray[np.int64], *, bins: int = 15
) -> list[ZeroShotSummary]:
    """Sum up every variant; the first is the original, against which flips are counted.

    Raises:
        ConfigError: labels and predictions are of different numbers of images.
    """
    for one in predictions:
        if len(one.likeliest) != len(labels):
            raise ConfigError(
                f"{len(labels)} labels for {len(one.likeliest)} predictions of '{one.variant}'"
            )
    before = predictions[0].likeliest[:, 0]
    found: list[ZeroShotSummary] = []
    for one in predictions:
        now = one.likeliest[:, 0]
        right, flipped = now == labels, now != before
        found.append(
            ZeroShotSummary(
                variant=one.variant,
                top1=float(right.mean()),
                top5=float((one.likeliest == labels[:, None]).any(1).mean()),
                confidence=float(one.probability.mean()),
                calibration=reliability(one.probability, right, bins=bins),
                flips=int(flipped.sum()),
                flips_lost=int((flipped & (before == labels)).sum()),
                flips_won=int((flipped & right).sum()),
            )
        )
    return found


def flips_by_class(
    predictions: Sequence[Predictions], labels: NDArray[np.int64], n_classes: int
) -> dict[str, NDArray[Any] | list[str]]:
    """Return one row per (variant, class): images, flips, right before, right now."""
    before = predictions[0].likeliest[:, 0]
    columns: dict[str, list[NDArray[np.int64]]] = {}
    for one in predictions:
        now = one.likeliest[:, 0]
        masks = {
            "n_images": labels >= 0,
            "n_flips": now != before,
            "n_right_before": before == labels,
            "n_right": now == labels,
        }
        for name, mask in masks.items():
            counted = np.bincount(labels[mask], minlength=n_classes)
            columns.setdefault(name, []).append(counted)
    variants = [one.variant for one in predictions for _ in range(n_classes)]
    classes = np.tile(np.arange(n_classes), len(predictions))
    counts = {name: np.concatenate(parts) for name, parts in columns.items()}
    return {"variant": variants, "class": classes, **counts}


def per_image(
    predictions: Sequence[Predictions], labels: NDArray[np.int64], ids: Sequence[str]
) -> dict[str, NDArray[Any] | list[str]]:
    """Return one row per (variant, image): what removal did to this image's prediction."""
    n = len(predictions)
    return {
        "variant": [one.variant for one in predictions for _ in ids],
        "image_id": [str(name) for name in ids] * n,
        "label": np.tile(labels, n),
        "predicted": np.concatenate([one.likeliest[:, 0] for one in predictions]),
        "probability": np.concatenate([one.probability for one in predictions]),
        "probability_of_label": np.concatenate([one.of_label for one in predictions]),
    }
