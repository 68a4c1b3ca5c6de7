"""What probes are said to take: bytes by the features' shapes, hours by their arithmetic."""

from typing import Any

import pytest
import torch
from tests.probes.probe_vit import M, small_backbone, small_sae

from vitscope.probes import planning
from vitscope.probes.features import FeatureExtraction
from vitscope.probes.labelled_images import LabelledScenes, TaskSets
from vitscope.probes.planning import needs_of, span
from vitscope.probes.settings import (
    ClassificationSettings,
    DepthSettings,
    HeadSettings,
    ProbeSettings,
    SegmentationSettings,
)

GROUPS = {"low-removed": list(range(0, M, 2)), "high-removed": list(range(1, M, 2))}
HEADS: dict[Any, HeadSettings] = {
    "classification": ClassificationSettings(batch_size=8),
    "segmentation": SegmentationSettings(batch_size=8),
    "depth": DepthSettings(batch_size=8, bins=16),
}
SETTINGS = ProbeSettings(epochs=7, trials=2, seeds=3, memory_mb=64)


def extraction(task: Any) -> FeatureExtraction:
    return FeatureExtraction(small_backbone(), small_sae(), GROUPS, task, HEADS[task], workers=1)


def sets(task: Any) -> TaskSets:
    train, validation = (LabelledScenes(task, 0, n, seed=n, side=32) for n in (20, 5))
    return TaskSets(train, validation, () if task == "depth" else train.classes)


@pytest.mark.parametrize("task", HEADS)
def test_hours_are_of_a_batch_and_a_step(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def a_second(work: Any) -> float:
        work()
        return 1.0

    monkeypatch.setattr(planning, "_seconds", a_second)
    made = extraction(task)
    needs = needs_of(made, sets(task), SETTINGS)
    assert needs.cache_bytes == 25 * made.bytes_per_image
    assert (needs.n_variants, needs.n_heads) == (3, 3 * 2 * 3)
    # four images a second through the backbone; a step of maps has four, one of labels a batch
    assert needs.feature_hours == pytest.approx(25 / 4 / 3600)
    a_step = 8 if task == "classification" else 4
    assert needs.head_hours == pytest.approx(20 * 7 / a_step / 3600)
    assert needs.sentence.startswith(f"{task}: 20 + 5 images in 3 variants take ")


def test_times_are_measured_and_no_draw_is_disturbed() -> None:
    state = torch.random.get_rng_state()
    needs = needs_of(extraction("segmentation"), sets("segmentation"), SETTINGS)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert 0 < needs.feature_hours < 1 and 0 < needs.head_hours < 1


@pytest.mark.parametrize(
    ("hours", "text"), [(30.2, "30 h"), (2.5, "2.5 h"), (0.2, "12 min"), (40 / 3600, "40 s")]
)
def test_spans_are_written_short(hours: float, text: str) -> None:
    assert span(hours) == text
