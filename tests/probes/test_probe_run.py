"""Whole probes on small sets: readers of real formats, all tasks, seeds, refusals."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.probes.probe_vit import M, small_backbone, small_sae

from vitscope.embedded.export import export_scenes
from vitscope.errors import ConfigError
from vitscope.images.ade20k import read_ade20k
from vitscope.images.imagenet import read_class_folders
from vitscope.images.nyud import read_nyud_folder
from vitscope.probes.features import FeatureExtraction
from vitscope.probes.labelled_images import LabelledScenes
from vitscope.probes.probe import train_and_score
from vitscope.probes.settings import (
    ClassificationSettings,
    DepthSettings,
    HeadSettings,
    ProbeSettings,
    SegmentationSettings,
)
from vitscope.store.tables import read_table, write_table

GROUPS = {"low-removed": list(range(0, M, 2)), "high-removed": list(range(1, M, 2))}


def extraction(task: Any, head: HeadSettings) -> FeatureExtraction:
    return FeatureExtraction(small_backbone(), small_sae(), GROUPS, task, head, workers=1)


def exported(folder: Path, task: str) -> tuple[Any, Any, int | None]:
    """The training and the validation set in the task's own format, and the classes."""
    if task == "classification":
        # every fifth is held out, and has few of the places: both sets are the training folders
        root = export_scenes(folder, 30, seed=1, side=32, layout="imagenet")
        train = read_class_folders(root / "train")
        return train, train, len(train.classes)
    if task == "segmentation":
        root = export_scenes(folder, 15, seed=1, side=32, layout="ade20k")
        train = read_ade20k(root, "training")
        return train, read_ade20k(root, "validation"), len(train.classes)
    root = export_scenes(folder, 15, seed=1, side=32, layout="nyud")
    return read_nyud_folder(root, "train"), read_nyud_folder(root, "test"), None


HEADS = {
    "classification": ClassificationSettings(batch_size=8),
    "segmentation": SegmentationSettings(batch_size=4),
    "depth": DepthSettings(batch_size=4, bins=32, crop="eigen"),
}


@pytest.mark.parametrize("task", HEADS)
def test_a_task_from_its_own_format_to_a_table(tmp_path: Path, task: str) -> None:
    train, validation, n_outputs = exported(tmp_path / "data", task)
    settings = ProbeSettings(epochs=3, trials=2, seeds=2, memory_mb=64)
    made = extraction(task, HEADS[task])
    run = partial(train_and_score, made, train, validation, tmp_path / "c", settings)
    result, trials = run(n_outputs=n_outputs)
    assert (result.n_train, result.n_validation) == (len(train), len(validation))
    assert [v.variant for v in result.variants] == ["original", *GROUPS]
    write_table(tmp_path / "probes.parquet", trials, {})
    table = read_table(tmp_path / "probes.parquet")
    assert table["is_best"].sum() == 6 and len(table["value"]) == 12
    extreme = np.max if result.higher_is_better else np.min
    for summary in result.variants:
        mine = np.asarray(table["variant"]) == summary.variant
        assert mine.sum() == 4 and len(summary.values) == 2 and summary.spread >= 0
        for seed, value in enumerate(summary.values):
            of_seed = mine & (table["seed"] == seed)
            (best,) = table["value"][of_seed & table["is_best"]]
            assert best == value == extreme(table["value"][of_seed])
        assert summary.mean == pytest.approx(np.mean(summary.values))
    metric, other = {
        "classification": ("top1", "top5"),
        "segmentation": ("miou", "pixel_accuracy"),
        "depth": ("rmse", "rmse_per_image"),
    }[task]
    assert result.metric == metric and set(result.variants[0].others) == {other}
    again, same = run(n_outputs=n_outputs)
    assert again == result and all(np.array_equal(same[name], trials[name]) for name in trials)


def test_a_linear_probe_reads_what_is_there_and_not_what_was_removed(tmp_path: Path) -> None:
    """Labels that are a direction of the tokens: gone when its features are removed."""
    backbone, sae = small_backbone(), small_sae()
    everything = {"all-removed": list(range(M))}
    made = FeatureExtraction(
        backbone, sae, everything, "classification", ClassificationSettings(), keep_error=False
    )
    train = LabelledScenes("classification", 0, 96, seed=0, side=32, label="time")
    test = LabelledScenes("classification", 96, 48, seed=0, side=32, label="time")
    settings = ProbeSettings(epochs=20, trials=3)
    result, _ = train_and_score(made, train, test, tmp_path / "c", settings, n_outputs=4)
    found = {v.variant: v.mean for v in result.variants}
    most_common = max(np.bincount([int(test.load(i)[1]) for i in range(48)])) / 48
    assert found["original"] > most_common + 0.1
    assert found["all-removed"] <= most_common + 1e-9  # every image is b_dec


class Mislabelled(LabelledScenes):
    """Scenes whose third label is a hundred."""

    def load(self, index: int) -> Any:
        picture, label = super().load(index)
        return picture, label if index != 2 else np.full_like(label, 100)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("classification", "run from .* to 100, but 0 to 15 are possible with 16 classes"),
        ("segmentation", "to 100, but 0 to 16 are possible"),
    ],
)
def test_labels_out_of_range_are_refused_before_training(
    tmp_path: Path, task: Any, message: str
) -> None:
    images = Mislabelled(task, 0, 4, seed=0, side=32)
    made = extraction(task, HEADS[task])
    with pytest.raises(ConfigError, match=message):
        train_and_score(made, images, images, tmp_path / "c", ProbeSettings(), n_outputs=16)
    with pytest.raises(ConfigError, match="needs the number of classes"):
        train_and_score(made, images, images, tmp_path / "c", ProbeSettings())


def test_ranges_that_are_none_are_refused() -> None:
    for values in ({"learning_rate": (0.1, 0.01)}, {"weight_decay": (0.0, 1.0)}):
        with pytest.raises(ConfigError, match="must be positive and ascending"):
            HeadSettings.parse(values, source="study.toml")
    with pytest.raises(ConfigError, match="depth_range"):
        DepthSettings.parse({"depth_range": (3.0, 2.0)}, source="study.toml")


def test_where_every_trial_diverges_nothing_is_averaged(tmp_path: Path) -> None:
    images = LabelledScenes("classification", 0, 8, seed=0, side=32)
    head = ClassificationSettings(learning_rate=(1e30, 1e31))
    made = extraction("classification", head)
    settings = ProbeSettings(epochs=2, trials=2)
    result, trials = train_and_score(made, images, images, tmp_path / "c", settings, n_outputs=16)
    for summary in result.variants:
        assert np.isnan(summary.mean) and summary.values == () and len(summary.diverged) == 2
        assert summary.diverged[0].startswith("seed 0, trial 0 (learning rate ")
    assert not np.asarray(trials["is_best"]).any() and np.asarray(trials["diverged"]).all()
