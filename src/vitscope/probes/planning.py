"""What probes will need, before they begin: bytes on disk, and hours as this machine has them.

Bytes are exact. Hours are those of one batch of noise images and one step of the heads, timed,
times their number; loading images is not in them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from vitscope.probes.batches import Batch
from vitscope.probes.features import TARGET, Extraction, features_of, pooled_width
from vitscope.probes.probe import make_objective
from vitscope.probes.search import draw_trials
from vitscope.probes.settings import ClassificationSettings, DepthSettings, ProbeSettings
from vitscope.probes.training import begin_training

IMAGENET_TRAIN, IMAGENET_VALIDATION, IMAGENET_CLASSES = 1_281_167, 50_000, 1000

MEASURED_IMAGES = 4
"""Of a forward pass, and of a step of maps: enough for a rate, little to wait for."""

LONG_ENOUGH_S = 0.5
"""Shorter work is timed up to ``REPEATS`` times, and the fastest counts."""

REPEATS = 3

HOUR_S = 3600.0


@dataclass(frozen=True)
class TaskNeeds:
    """What one task's probes take.

    Attributes:
        name: of the task.
        n_train: images that heads learn from.
        n_validation: images that they are scored on.
        n_variants: of the tokens, the original included.
        n_heads: linear heads trained, of all variants.
        epochs: of each.
        cache_bytes: of the features and targets of both sets, on disk.
        feature_hours: for the features.
        head_hours: for the heads.
    """

    name: str
    n_train: int
    n_validation: int
    n_variants: int
    n_heads: int
    epochs: int
    cache_bytes: int
    feature_hours: float
    head_hours: float

    @property
    def sentence(self) -> str:
        """It in one line."""
        return (
            f"{self.name}: {self.n_train:,} + {self.n_validation:,} images in {self.n_variants} "
            f"variants take {size(self.cache_bytes)} of disk and about {span(self.feature_hours)}; "
            f"{self.n_heads} heads, {self.epochs} epochs, about {span(self.head_hours)}"
        )


def needs_of(
    extraction: Extraction,
    n_images: tuple[int, int],
    n_outputs: int | None,
    settings: ProbeSettings,
    *,
    name: str | None = None,
) -> TaskNeeds:
    """Return what the probes of a task take.

    Args:
        extraction: backbone, SAE, groups and task.
        n_images: in the training and the validation set.
        n_outputs: number of classes; depth has its bins.
        settings: epochs, trials, searches.
        name: of the task, in words.
    """
    plan = extraction.plan(sum(n_images), pooled_width(extraction.backbone))
    n_heads = len(extraction.variants) * settings.trials * settings.seeds
    per_image = _feature_seconds(extraction)
    per_step_image = _head_seconds(extraction, n_outputs, settings)
    return TaskNeeds(
        name=name or extraction.task,
        n_train=n_images[0],
        n_validation=n_images[1],
        n_variants=len(extraction.variants),
        n_heads=n_heads,
        epochs=settings.epochs,
        cache_bytes=plan.n_bytes,
        feature_hours=sum(n_images) * per_image / HOUR_S,
        head_hours=n_images[0] * settings.epochs * per_step_image / HOUR_S,
    )


def imagenet_needs(extraction: Extraction, settings: ProbeSettings) -> TaskNeeds:
    """Return what ImageNet-1K's classification takes for the same backbone, SAE and groups."""
    of_imagenet = replace(extraction, task="classification", settings=ClassificationSettings())
    return needs_of(
        of_imagenet,
        (IMAGENET_TRAIN, IMAGENET_VALIDATION),
        IMAGENET_CLASSES,
        settings,
        name="ImageNet-1K",
    )


def size(n_bytes: int) -> str:
    """Write a number of bytes: 10.9 GB, 3 MB."""
    for unit, letters in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if n_bytes >= unit:
            return f"{n_bytes / unit:.1f} {letters}"
    return f"{n_bytes / 1e6:.2f} MB"


def span(hours: float) -> str:
    """Write a time that was estimated, to two digits: 30 h, 2.5 h, 12 min, 40 s."""
    for of_an_hour, letters in ((1.0, "h"), (60.0, "min"), (HOUR_S, "s")):
        value = hours * of_an_hour
        if value >= 1 or letters == "s":
            return f"{value:.0f} {letters}" if value >= 10 else f"{value:.1f} {letters}"
    raise AssertionError


def _feature_seconds(extraction: Extraction) -> float:
    """Return seconds an image."""
    side = extraction.backbone.site.resolution
    n = min(extraction.batch_size, MEASURED_IMAGES)
    g = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (n, 3, side, side), generator=g, dtype=torch.uint8)
    return _seconds(lambda: features_of(extraction, noise), extraction) / n


def _head_seconds(extraction: Extraction, n_outputs: int | None, settings: ProbeSettings) -> float:
    """Return seconds an image and epoch, of all heads."""
    head, task, site = extraction.settings, extraction.task, extraction.backbone.site
    objective = make_objective(extraction, settings, n_outputs)
    plan = extraction.plan(1, pooled_width(extraction.backbone))
    # the update of the weights is shared by a batch: maps are dear enough for it not to count
    n = head.batch_size if task == "classification" else min(head.batch_size, MEASURED_IMAGES)
    widths = [array.shape[-1] for name, array in plan.arrays.items()
              if name != TARGET and name not in extraction.groups]  # fmt: skip
    device = extraction.sae.w_dec.device
    n_variants, n_patches = len(extraction.variants), 1 if task == "classification" else None
    g = torch.Generator().manual_seed(0)
    features = torch.randn(n_variants, n, n_patches or site.n_patches, sum(widths), generator=g)
    target_shape = (n, *plan.arrays[TARGET].shape)
    if isinstance(head, DepthSettings):
        target = torch.empty(target_shape).uniform_(*head.depth_range, generator=g)
    else:
        target = torch.randint(0, objective.n_outputs, target_shape, generator=g)
    batch = Batch(features.to(device), target.to(device))
    seeds = range(settings.seeds)
    trials = draw_trials(task, head, n=settings.trials, seeds=seeds, search=settings.search)
    training = begin_training((n_variants, sum(widths)), objective, trials, head, settings, device)
    return _seconds(lambda: training.step(batch, objective, 0.0, 0, 1.0), extraction) / n


def _seconds(work: Callable[[], object], extraction: Extraction) -> float:
    """Return the fastest of a few times; the first warms up, unless it alone is long."""
    is_cuda = extraction.sae.w_dec.device.type == "cuda"
    fastest = float("inf")
    for _ in range(1 + REPEATS):
        started = time.perf_counter()
        work()
        if is_cuda:
            torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - started)
        if fastest > LONG_ENOUGH_S and not is_cuda:
            break
    return fastest
