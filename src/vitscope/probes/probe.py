"""One task, start to end: features of both sets, all heads, the best of every variant."""

from pathlib import Path

from vitscope.distributed import rank_0_goes_on
from vitscope.errors import ConfigError
from vitscope.probes.batches import CachedFeatures
from vitscope.probes.cache import FeatureCache
from vitscope.probes.checkpoint import Checkpoint
from vitscope.probes.classification import Classification
from vitscope.probes.depth import Depth
from vitscope.probes.features import TARGET, Extraction, cache_features
from vitscope.probes.labelled import LabelledImages
from vitscope.probes.objective import Objective
from vitscope.probes.results import ProbeResult, list_results
from vitscope.probes.search import draw_trials
from vitscope.probes.segmentation import Segmentation
from vitscope.probes.settings import DepthSettings, ProbeSettings, Task
from vitscope.probes.training import score_heads, train_heads
from vitscope.probes.upsampling import Upsampling
from vitscope.store.checksum import fingerprint

MEGABYTE = 1 << 20


def run_probe(
    extraction: Extraction,
    train: LabelledImages,
    validation: LabelledImages,
    folder: Path,
    settings: ProbeSettings,
    *,
    n_outputs: int | None = None,
    seed: int = 0,
) -> ProbeResult:
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

    Raises:
        VitscopeError: images that cannot be used, no room on the disk, or no number of classes.
        ShareDone: on the other ranks, once all features are taken.
    """
    objective = make_objective(extraction, settings, n_outputs)
    crop = isinstance(extraction.settings, DepthSettings) and extraction.settings.crop == "eigen"
    caches = (
        cache_features(extraction, train, folder / f"{extraction.task}-train"),
        cache_features(extraction, validation, folder / f"{extraction.task}-val", cropped=crop),
    )
    rank_0_goes_on()
    return probe_caches(extraction, caches, objective, settings, seed=seed)


def probe_caches(
    extraction: Extraction,
    caches: tuple[FeatureCache, FeatureCache],
    objective: Objective,
    settings: ProbeSettings,
    *,
    seed: int = 0,
) -> ProbeResult:
    """Train and score over the caches of the training and the validation set.

    Raises:
        ConfigError: a label of either set is out of range.
    """
    for cache in caches:
        _require_labels(cache, extraction.task, objective.n_outputs)
    device = extraction.sae.w_dec.device
    memory = settings.memory_mb * MEGABYTE
    train, validation = (
        CachedFeatures(cache, extraction.variants, device, memory // 4) for cache in caches
    )
    head, task = extraction.settings, extraction.task
    seeds = range(seed, seed + settings.seeds)
    trials = draw_trials(task, head, n=settings.trials, seeds=seeds, search=settings.search)
    decides = [caches[0].fingerprint, extraction.variants, trials, head, settings, objective, seed]
    checkpoint = Checkpoint(caches[0].folder.with_suffix(".training"), fingerprint(decides))
    trained = train_heads(
        train, objective, trials, head, settings, key=(task, seed), checkpoint=checkpoint
    )
    metrics = score_heads(trained, validation, objective, head.batch_size)
    results = list_results(extraction.variants, trials, trained, metrics, objective)
    checkpoint.discard()
    return ProbeResult(
        task=task,
        metric=objective.metric,
        higher_is_better=objective.higher_is_better,
        n_train=len(train),
        n_validation=len(validation),
        trials=results,
    )


def make_objective(
    extraction: Extraction, settings: ProbeSettings, n_outputs: int | None
) -> Objective:
    """Return the task's loss and score for the shapes of ``extraction``.

    Raises:
        ConfigError: the task has classes, and their number is not given.
    """
    upsampling = Upsampling(extraction.backbone.site.grid, extraction.pixels)
    memory = settings.memory_mb * MEGABYTE // 2
    head = extraction.settings
    if isinstance(head, DepthSettings):
        return Depth(head.bins, head.depth_range, head.loss_lambda, upsampling, memory)
    if n_outputs is None:
        raise ConfigError(f"{extraction.task} needs the number of classes of its labels")
    if extraction.task == "segmentation":
        return Segmentation(n_outputs, upsampling, memory)
    return Classification(n_outputs)


def _require_labels(cache: FeatureCache, task: Task, n_outputs: int) -> None:
    if task == "depth":
        return
    target = cache.array(TARGET)
    low, high = (0, n_outputs - 1) if task == "classification" else (0, n_outputs)
    found = (int(target.min()), int(target.max()))
    if found[0] < low or found[1] > high:
        raise ConfigError(
            f"{task}: labels in {cache.folder} run from {found[0]} to {found[1]}, but {low} to "
            f"{high} are possible with {n_outputs} classes; check the labels' file"
        )
