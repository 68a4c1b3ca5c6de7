"""Zero-shot predictions by text and their confidence, with and without groups of features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from numpy.typing import NDArray
from torch import Tensor

from vitscope.axes import Float, ImageBatch, Int64
from vitscope.backbones.backbone import BlockTokens
from vitscope.errors import ConfigError
from vitscope.probes.features import FeatureExtraction, labelled_batches, variant_tokens
from vitscope.probes.labelled_images import LabelledImages
from vitscope.probes.prompts import Prompts
from vitscope.probes.results import Reliability, ZeroShotSummary
from vitscope.probes.text_towers import (
    OpenClipTower,
    TextTower,
    class_embeddings,
    require_same_weights,
)
from vitscope.progress import Tracker, track

N_LIKELIEST = 5
"""Classes kept of every prediction, for top-5."""


ZERO_SHOT_LABEL = "zero-shot"
"""What its progress is called."""

PART_FIELDS = ("likeliest", "probability", "of_label")
"""What a part has of every variant, beside the labels of its images."""


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


def predicted(
    logits: Float[Tensor, "N C"], labels: Int64[Tensor, "N"]
) -> dict[str, Shaped[Tensor, "N ..."]]:
    """Return what :class:`Predictions` has of some images, by a softmax over all classes."""
    share = torch.softmax(logits.double(), -1)
    top, likeliest = share.topk(min(N_LIKELIEST, share.shape[1]), dim=-1)
    of_label = share.gather(1, labels.to(share.device)[:, None])[:, 0]
    fields = (likeliest, top[:, 0], of_label)
    return {name: value.cpu() for name, value in zip(PART_FIELDS, fields, strict=True)}


@torch.inference_mode()
def variant_logits(
    extraction: FeatureExtraction,
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
    plain, tokens = variant_tokens(extraction, pixels)
    logits: dict[str, Tensor] = {}
    for name, patch in tokens.items():
        pooled = extraction.backbone.resume(BlockTokens(patch, plain.prefix)).pooled
        image = tower.project(pooled)
        logits[name] = tower.scale * image @ classes.to(image).T
    return logits


@dataclass(frozen=True, eq=False)
class ZeroShot:
    """Everything that predicts.

    Attributes:
        extraction: backbone, SAE, groups, batch size; its task is classification.
        tower: of the backbone's own weights.
        classes: unit rows, one per class, in the order of the labels.

    Raises:
        ConfigError: the task is another one.
    """

    extraction: FeatureExtraction
    tower: TextTower
    classes: Float[Tensor, "C e"]

    def __post_init__(self) -> None:
        if self.extraction.task != "classification":
            raise ConfigError(f"zero-shot classifies; the task is {self.extraction.task}")

    @classmethod
    def prepare(
        cls, extraction: FeatureExtraction, tower: TextTower, prompts: Prompts
    ) -> "ZeroShot":
        """Embed the classes of ``prompts``, which are in the order of the labels.

        Raises:
            ConfigError: the tower is open_clip's, and not of the backbone's weights.
        """
        if isinstance(tower, OpenClipTower):
            require_same_weights(extraction.backbone, tower)
        return cls(extraction, tower, class_embeddings(tower, prompts))

    def predict(self, images: LabelledImages, rows: range, progress: Tracker) -> dict[str, Tensor]:
        """Return the predictions of every variant for some images, as a part for the disk.

        Args:
            images: with labels.
            rows: which of them.
            progress: told of every batch.

        Returns:
            ``labels`` [n], and of every variant ``VARIANT/likeliest`` [n, 5],
            ``VARIANT/probability`` [n] and ``VARIANT/of_label`` [n].

        Raises:
            ConfigError: a label has no class.
            VitscopeError: an image cannot be used.
        """
        pieces: list[dict[str, Tensor]] = []
        start = rows.start
        for pixels, labels in labelled_batches(self.extraction, images, rows):
            stop = start + len(labels)
            _require_classes(labels.numpy(), len(self.classes), images.ids[start:stop])
            found = {"labels": labels}
            logits = variant_logits(self.extraction, self.tower, self.classes, pixels)
            for name, values in logits.items():
                fields = predicted(values, labels)
                found |= {f"{name}/{field}": value for field, value in fields.items()}
            pieces.append(found)
            progress.advance(len(labels))
            start = stop
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

    def joined(
        self, parts: Sequence[dict[str, Tensor]]
    ) -> tuple[list[Predictions], NDArray[np.int64]]:
        """Return the predictions of every variant, the original first, and the labels."""

        def whole(name: str) -> NDArray[Any]:
            return torch.cat([part[name] for part in parts]).numpy()

        found = [
            Predictions(name, *(whole(f"{name}/{field}") for field in PART_FIELDS))
            for name in self.extraction.variants
        ]
        return found, whole("labels")


def predict_all(
    extraction: FeatureExtraction, tower: TextTower, prompts: Prompts, images: LabelledImages
) -> tuple[list[Predictions], NDArray[np.int64]]:
    """Return the predictions of every variant, the original first, and the labels.

    Args:
        extraction: backbone, SAE, groups, batch size; its task is classification.
        tower: of the backbone's own weights.
        prompts: classes in the order of the labels.
        images: with labels.

    Raises:
        ConfigError: a label has no class, or the task is another one.
        VitscopeError: an image cannot be used.
    """
    zero_shot = ZeroShot.prepare(extraction, tower, prompts)
    with track(ZERO_SHOT_LABEL, len(images), "images") as progress:
        return zero_shot.joined([zero_shot.predict(images, range(len(images)), progress)])


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


def reliability(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], *, bins: int = 15
) -> Reliability:
    """Bin predictions by confidence in (0, 1/bins], (1/bins, 2/bins], …

    Args:
        confidence: probability of what was predicted, [N].
        right: whether it was right, [N].
        bins: number of bins.
    """
    edges = np.linspace(0, 1, bins + 1)
    place = (np.searchsorted(edges, confidence, side="left") - 1).clip(0, bins - 1)
    n = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=w, minlength=bins) for w in (confidence, right)]
    mean, share = (np.divide(s, n, out=np.full(bins, np.nan), where=n > 0) for s in sums)
    error = np.abs(sums[1] - sums[0]).sum() / max(len(confidence), 1)
    return Reliability(
        tuple(edges.tolist()),
        tuple(n.tolist()),
        tuple(mean.tolist()),
        tuple(share.tolist()),
        float(error),
    )


def _require_classes(labels: NDArray[np.int64], n_classes: int, ids: tuple[str, ...]) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= n_classes))
    if wrong.size:
        raise ConfigError(
            f"{ids[wrong[0]]} has label {labels[wrong[0]]}, and the prompts name {n_classes} "
            "classes: they must be in the order of the labels"
        )
