"""One task, start to end: features of both sets, all heads, the best of every variant."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitscope.distributed import ShareDone, leave_unless_rank_0
from vitscope.errors import ConfigError
from vitscope.probes.features import (
    TARGET,
    FeatureCache,
    FeatureExtraction,
    LabelledFeatures,
    cache_features,
)
from vitscope.probes.heads import Trial, draw_trials
from vitscope.probes.labelled_images import LabelledImages
from vitscope.probes.objectives import (
    Classification,
    Depth,
    ProbeObjective,
    Segmentation,
)
from vitscope.probes.pixels.maps import PixelMaps
from vitscope.probes.results import TaskResult, VariantResult
from vitscope.probes.settings import DepthSettings, ProbeSettings
from vitscope.probes.training import Checkpoint, TrainedHeads, score_heads, train_heads
from vitscope.store.atomic import fingerprint

MEGABYTE = 1 << 20

TrialTable = dict[str, NDArray[Any] | list[str]]
"""One row a head: task, variant, metric, seed, trial, rates, value, divergence, ``is_best``."""


def train_and_score(
    extraction: FeatureExtraction,
    train: LabelledImages,
    validation: LabelledImages,
    folder: Path,
    settings: ProbeSettings,
    *,
    n_outputs: int | None = None,
    seed: int = 0,
) -> tuple[TaskResult, TrialTable]:
    """Cache the features of both sets below ``folder``, train every head, score it.

    In a job of several ranks all take the features, and rank 0 alone trains.

    Args:
        extraction: how features are taken; its task decides the rest.
        train: what heads learn from.
        validation: what they are scored on, and the best trial chosen by.
        folder: of the caches.
        settings: epochs, trials, memory.
        n_outputs: number of classes; depth has its bins.
        seed: first of ``settings.seeds`` searches.

    Returns:
        the best trial of every search, variant by variant, and every head.

    Raises:
        VitscopeError: images that cannot be used, a label out of range, no room on the disk, or
            no number of classes.
        ShareDone: on the other ranks, once all features are taken.
    """
    objective = make_objective(extraction, settings, n_outputs)
    head, task = extraction.settings, extraction.task
    crop = isinstance(head, DepthSettings) and head.crop == "eigen"
    caches: list[FeatureCache] = []
    for images, split, cropped in ((train, "train", False), (validation, "val", crop)):
        with suppress(ShareDone):  # the other ranks take the second set's features at once
            caches.append(
                cache_features(extraction, images, folder / f"{task}-{split}", cropped=cropped)
            )
    leave_unless_rank_0()
    for cache in caches:
        _require_labels(cache, extraction, objective.n_outputs)
    device, memory = extraction.sae.w_dec.device, settings.memory_mb * MEGABYTE // 4
    learned, scored = (LabelledFeatures(c, extraction.variants, device, memory) for c in caches)
    seeds = range(seed, seed + settings.seeds)
    trials = draw_trials(task, head, n=settings.trials, seeds=seeds, search=settings.search)
    decides = [caches[0].fingerprint, extraction.variants, trials, head, settings, objective, seed]
    checkpoint = Checkpoint(folder / f"{task}.training", fingerprint(decides))
    trained = train_heads(
        learned, objective, trials, head, settings, key=(task, seed), checkpoint=checkpoint
    )
    metrics = score_heads(trained, scored, objective, head.batch_size)
    checkpoint.discard()
    return summed_up(extraction, objective, trials, trained, metrics, (len(learned), len(scored)))


def make_objective(
    extraction: FeatureExtraction, settings: ProbeSettings, n_outputs: int | None
) -> ProbeObjective:
    """Return the task's loss and score for the shapes of ``extraction``.

    Raises:
        ConfigError: the task has classes, and their number is not given.
    """
    memory = settings.memory_mb * MEGABYTE // 2
    maps = PixelMaps(extraction.backbone.site.grid, extraction.pixels, memory)
    head = extraction.settings
    if isinstance(head, DepthSettings):
        return Depth(head.bins, head.depth_range, head.loss_lambda, maps)
    if n_outputs is None:
        raise ConfigError(f"{extraction.task} needs the number of classes of its labels")
    if extraction.task == "segmentation":
        return Segmentation(n_outputs, maps)
    return Classification(n_outputs)


def summed_up(
    extraction: FeatureExtraction,
    objective: ProbeObjective,
    trials: Sequence[Trial],
    trained: TrainedHeads,
    metrics: Mapping[str, Tensor],
    n_images: tuple[int, int],
) -> tuple[TaskResult, TrialTable]:
    """Return the best trial of every search, variant by variant, and every head.

    Args:
        extraction: task and variants.
        objective: which metric chooses.
        trials: of every variant.
        trained: their heads.
        metrics: name -> [V, h], NaN where a head has diverged or is stuck.
        n_images: in the training and in the validation set.
    """
    arrays = {name: value.double().numpy() for name, value in metrics.items()}
    values = arrays[objective.metric]
    diverged = np.isnan(values)
    best = best_of_searches(values, trials, higher_is_better=objective.higher_is_better)
    variants = tuple(
        _variant_result(
            name,
            {m: found[row, best[row]] for m, found in arrays.items()},
            objective.metric,
            [t for t, is_out in zip(trials, diverged[row], strict=True) if is_out],
        )
        for row, name in enumerate(extraction.variants)
    )
    result = TaskResult(
        extraction.task, objective.metric, objective.higher_is_better, *n_images, variants
    )
    of_trial = {
        "seed": [t.seed for t in trials],
        "trial": [t.number for t in trials],
        "learning_rate": [t.learning_rate for t in trials],
        "weight_decay": [t.weight_decay for t in trials],
    }
    table: TrialTable = {
        "task": [result.task] * values.size,
        "variant": [name for name in extraction.variants for _ in trials],
        "metric": [result.metric] * values.size,
        **{name: np.tile(column, len(variants)) for name, column in of_trial.items()},
        "value": values.ravel(),
        "final_loss": trained.losses[-1].double().numpy().ravel(),
        "diverged": diverged.ravel(),
        "is_best": best.ravel(),
    }
    return result, table


def best_of_searches(
    values: NDArray[np.float64], trials: Sequence[Trial], *, higher_is_better: bool
) -> NDArray[np.bool_]:
    """Return which trials [V, h] are the best of their search; none where all of them diverged."""
    seeds = np.array([trial.seed for trial in trials])
    signed = np.where(np.isfinite(values), values if higher_is_better else -values, -np.inf)
    best = np.zeros(values.shape, dtype=bool)
    for seed in np.unique(seeds):
        columns = np.flatnonzero(seeds == seed)
        winner = columns[signed[:, columns].argmax(1)]
        rows = np.arange(len(values))
        best[rows, winner] = np.isfinite(signed[rows, winner])
    return best


def _variant_result(
    variant: str, of_best: dict[str, NDArray[np.float64]], metric: str, diverged: Sequence[Trial]
) -> VariantResult:
    """Sum up a variant from the metrics of its searches' best heads."""
    values = of_best.pop(metric)
    return VariantResult(
        variant=variant,
        mean=float(values.mean()) if len(values) else math.nan,
        spread=float(values.std(ddof=1)) if len(values) > 1 else math.nan,
        values=tuple(values.tolist()),
        diverged=tuple(
            f"seed {t.seed}, trial {t.number} (learning rate {t.learning_rate:.3g}, weight decay "
            f"{t.weight_decay:.3g})"
            for t in diverged
        ),
        others={name: float(found.mean()) for name, found in of_best.items() if len(found)},
    )


def _require_labels(cache: FeatureCache, extraction: FeatureExtraction, n_outputs: int) -> None:
    """Refuse labels that the heads do not have; a segmentation's 0 is ignored."""
    task = extraction.task
    if task == "depth":
        return
    low, high = (0, n_outputs - 1) if task == "classification" else (0, n_outputs)
    ends = [torch.stack(torch.aminmax(shard[TARGET])) for shard in cache.shards]
    found = (int(torch.stack(ends).min()), int(torch.stack(ends).max()))
    if found[0] < low or found[1] > high:
        raise ConfigError(
            f"{task}: labels run from {found[0]} to {found[1]}, but {low} to {high} are possible "
            f"with {n_outputs} classes; check the labels' file"
        )
