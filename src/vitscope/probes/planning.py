"""What probes will need, before they begin: bytes on disk, and hours as this machine has them.

Hours are those of one batch of noise and one step of all heads, timed, times their number; loading
images is not in them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from vitscope.probes.features import (
    TARGET,
    FeatureCache,
    FeatureExtraction,
    LabelledFeatures,
    features_of,
)
from vitscope.probes.heads import draw_trials
from vitscope.probes.labelled_images import TaskSets
from vitscope.probes.probe import make_objective
from vitscope.probes.settings import ProbeSettings
from vitscope.probes.training import begin_training

MEASURED_IMAGES = 4
"""Of a forward pass, and of a step of maps: enough for a rate, little to wait for."""

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
            f"variants take {size(self.cache_bytes)} of disk and about "
            f"{span(self.feature_hours)}; {self.n_heads} heads, {self.epochs} epochs, about "
            f"{span(self.head_hours)}"
        )


def needs_of(extraction: FeatureExtraction, sets: TaskSets, settings: ProbeSettings) -> TaskNeeds:
    """Return what the probes of a task take.

    Args:
        extraction: backbone, SAE, groups and task.
        sets: to train and to score on.
        settings: epochs, trials, searches.
    """
    n_images = len(sets.train) + len(sets.validation)
    head, task, device = extraction.settings, extraction.task, extraction.sae.w_dec.device
    n, side = min(extraction.batch_size, MEASURED_IMAGES), extraction.backbone.site.resolution
    g = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (n, 3, side, side), generator=g, dtype=torch.uint8)
    per_image = _seconds(lambda: features_of(extraction, noise)) / n
    maps = () if task == "classification" else (extraction.pixels, extraction.pixels)
    # the second class, or a metre, everywhere
    truth = torch.ones(n, *maps, dtype=torch.float32 if task == "depth" else torch.int64)
    shard = features_of(extraction, noise) | {TARGET: truth}
    features = LabelledFeatures(FeatureCache([shard], ""), extraction.variants, device, 1 << 62)
    # the update of the weights is shared by a batch: maps are dear enough for it not to count
    n_step = head.batch_size if task == "classification" else n
    batch = features.batch((torch.arange(n_step) % n).sort().values)
    seeds = range(settings.seeds)
    trials = draw_trials(task, head, n=settings.trials, seeds=seeds, search=settings.search)
    objective = make_objective(extraction, settings, sets.n_outputs)
    shape = (len(extraction.variants), features.width)
    training = begin_training(shape, objective, trials, head, settings, device)
    step = _seconds(lambda: training.step(batch, objective, 0.0, 0, 1.0)) / n_step
    return TaskNeeds(
        name=task,
        n_train=len(sets.train),
        n_validation=len(sets.validation),
        n_variants=len(extraction.variants),
        n_heads=len(extraction.variants) * len(trials),
        epochs=settings.epochs,
        cache_bytes=n_images * extraction.bytes_per_image,
        feature_hours=n_images * per_image / HOUR_S,
        head_hours=len(sets.train) * settings.epochs * step / HOUR_S,
    )


def size(n_bytes: int) -> str:
    """Write a number of bytes: 10.9 GB, 3.2 MB."""
    scale, letters = next((u for u in ((1e9, "GB"), (1e6, "MB")) if n_bytes >= u[0]), (1e3, "kB"))
    return f"{n_bytes / scale:.1f} {letters}"


def span(hours: float) -> str:
    """Write a time that was estimated: 30 h, 2.5 h, 12 min, 40 s."""
    units = ((1.0, "h"), (60.0, "min"), (HOUR_S, "s"))
    scale, letters = next((u for u in units if hours * u[0] >= 1), units[-1])
    value = hours * scale
    return f"{value:.0f} {letters}" if value >= 10 else f"{value:.1f} {letters}"


def _seconds(work: Callable[[], object]) -> float:
    """Return the second of two runs: the first warms up."""
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    return seconds
