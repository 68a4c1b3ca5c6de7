"""What probes are said to take: bytes against files, hours against their arithmetic."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.probes.probe_vit import WIDTH, M, small_backbone, small_sae

from vitscope.errors import ArtifactError
from vitscope.probes import planning
from vitscope.probes.cache import read_cache
from vitscope.probes.features import Extraction, cache_features
from vitscope.probes.labelled import LabelledScenes
from vitscope.probes.planning import imagenet_needs, needs_of, size, span
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


def extraction(task: Any) -> Extraction:
    return Extraction(small_backbone(), small_sae(), GROUPS, task, HEADS[task], workers=1)


@pytest.fixture
def one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is timed is done once, and took a second."""

    def seconds(work: Any, _: Extraction) -> float:
        work()
        return 1.0

    monkeypatch.setattr(planning, "_seconds", seconds)


@pytest.mark.usefixtures("one_second")
@pytest.mark.parametrize("task", HEADS)
def test_bytes_are_those_of_the_files_and_hours_are_sums(tmp_path: Path, task: Any) -> None:
    made = extraction(task)
    classes = None if task == "depth" else 5
    needs = needs_of(made, (20, 5), classes, SETTINGS)
    files = 0
    for name, n in (("a", 20), ("b", 5)):
        images = LabelledScenes(task, 0, n, seed=3, side=32)
        cache_features(made, images, tmp_path / name)
        files += sum(path.stat().st_size for path in (tmp_path / name).glob("*.bin"))
    assert needs.cache_bytes == files
    assert (needs.n_variants, needs.n_heads) == (3, 3 * 2 * 3)
    # four images a second through the backbone; a step of maps has four, one of labels a batch
    assert needs.feature_hours == pytest.approx(25 / 4 / 3600)
    a_step = 8 if task == "classification" else 4
    assert needs.head_hours == pytest.approx(20 * 7 / a_step / 3600)
    assert needs.sentence.startswith(f"{task}: 20 + 5 images in 3 variants take ")


@pytest.mark.usefixtures("one_second")
def test_imagenet_is_the_same_for_its_size_and_thousand_classes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    make = planning.make_objective
    monkeypatch.setattr(
        planning, "make_objective", lambda e, s, n: asked.append((e.task, n)) or make(e, s, n)
    )
    needs = imagenet_needs(extraction("depth"), SETTINGS)
    assert asked == [("classification", 1000)]
    assert needs.cache_bytes == (1_281_167 + 50_000) * (3 * WIDTH * 2 + 8)
    assert needs.head_hours == pytest.approx(1_281_167 * 7 / 1024 / 3600)


def test_times_are_measured_and_no_draw_is_disturbed() -> None:
    made = extraction("segmentation")
    state = torch.random.get_rng_state()
    needs = needs_of(made, (20, 5), 5, SETTINGS)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert 0 < needs.feature_hours < 1 and 0 < needs.head_hours < 1


@pytest.mark.parametrize(
    ("n_bytes", "text"), [(24_536_070_144, "24.5 GB"), (3_100_000, "3.1 MB"), (4e12, "4.0 TB")]
)
def test_sizes_are_written_short(n_bytes: int, text: str) -> None:
    assert size(n_bytes) == text


@pytest.mark.parametrize(
    ("hours", "text"), [(30.2, "30 h"), (2.5, "2.5 h"), (0.2, "12 min"), (40 / 3600, "40 s")]
)
def test_spans_are_written_short(hours: float, text: str) -> None:
    assert span(hours) == text


def test_kept_features_are_read_back_by_their_record(tmp_path: Path) -> None:
    made = replace(extraction("classification"), chunk_images=4)
    images = LabelledScenes("classification", 0, 10, seed=3, side=32)
    cache = cache_features(made, images, tmp_path / "c")
    found = read_cache(tmp_path / "c")
    assert found == cache
    assert found.array("high-removed").shape == (10, WIDTH)
    (tmp_path / "killed").mkdir()
    record = (tmp_path / "c" / "cache.json").read_text()
    cut = record.replace('"n_images": 10', '"n_images": 14')
    (tmp_path / "killed" / "cache.json").write_text(cut)
    with pytest.raises(ArtifactError, match="was never completed"):
        read_cache(tmp_path / "killed")
    (tmp_path / "killed" / "cache.json").write_text("{}")
    with pytest.raises(ArtifactError, match="no record of features"):
        read_cache(tmp_path / "killed")
    with pytest.raises(ArtifactError):
        read_cache(tmp_path / "nowhere")
