"""Feature caches: batches across shards, damage found and mended, no room refused."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.probes.probe_vit import M, small_backbone, small_sae

from vitscope.errors import ArtifactError, ConfigError
from vitscope.probes import features as module
from vitscope.probes.features import (
    FeatureCache,
    FeatureExtraction,
    LabelledFeatures,
    cache_features,
    features_of,
)
from vitscope.probes.labelled_images import LabelledScenes
from vitscope.probes.settings import DepthSettings

N, SHARD = 10, 4
GROUPS = {"low-removed": list(range(0, M, 2))}
CPU = torch.device("cpu")


def images(n: int = N) -> LabelledScenes:
    return LabelledScenes("depth", 0, n, seed=3, side=32)


def extraction(**changes: Any) -> FeatureExtraction:
    values: dict[str, Any] = {"batch_size": 3, "workers": 1, "shard_images": SHARD} | changes
    return FeatureExtraction(
        small_backbone(), small_sae(), GROUPS, "depth", DepthSettings(pixels=8), **values
    )


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that were encoded."""
    seen: list[int] = []

    def counting(made: FeatureExtraction, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(len(pixels))
        return features_of(made, pixels)

    monkeypatch.setattr(module, "features_of", counting)
    return seen


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_batches_are_the_images_asked_for_across_shards(tmp_path: Path, memory: int) -> None:
    cache = cache_features(extraction(), images(), tmp_path / "c")
    assert [len(shard["target"]) for shard in cache.shards] == [4, 4, 2]
    features = LabelledFeatures(cache, ("low-removed", "original"), CPU, memory)
    assert features.is_held is (memory > 0) and len(features) == len(cache) == N
    whole = {name: cache.tensor(name) for name in cache.shards[0]}
    for rows in (torch.tensor([0, 3, 4, 9]), torch.tensor([5]), torch.arange(N)):
        batch = features.batch(rows)
        assert torch.equal(batch.target, whole["target"][rows])
        token = whole["image_token"][rows].float()
        for variant, found in zip(features.variants, batch.features, strict=True):
            assert torch.equal(found[..., : -token.shape[1]], whole[variant][rows].float())
            assert torch.equal(found[:, 0, -token.shape[1] :], token)
        assert batch.features.shape[-1] == features.width


def test_a_changed_byte_is_computed_anew_and_another_shard_size_too(
    tmp_path: Path, encoded: list[int]
) -> None:
    cache_features(extraction(), images(), tmp_path / "c")
    assert encoded == [3, 1, 3, 1, 2]
    whole = contents(tmp_path / "c")
    path = tmp_path / "c" / "part-000001.safetensors"
    changed = bytearray(whole[path.name])
    changed[-1] ^= 1
    path.write_bytes(changed)
    encoded.clear()
    cache_features(extraction(), images(), tmp_path / "c")
    assert encoded == [3, 1] and contents(tmp_path / "c") == whole
    encoded.clear()
    cache = cache_features(extraction(shard_images=5), images(), tmp_path / "c")
    assert encoded == [3, 2, 3, 2] and len(list((tmp_path / "c").iterdir())) == 2
    assert len(cache) == N


def test_features_of_another_schema_are_computed_anew(
    tmp_path: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_features(extraction(), images(3), tmp_path / "c")
    monkeypatch.setattr(module, "FEATURES_SCHEMA", module.FEATURES_SCHEMA + 1)
    cache_features(extraction(), images(3), tmp_path / "c")
    assert encoded == [3, 3]


def test_kept_features_are_opened_without_a_study(tmp_path: Path) -> None:
    cache = cache_features(extraction(), images(), tmp_path / "c")
    found = FeatureCache.open(tmp_path / "c")
    assert found.fingerprint == cache.fingerprint and len(found) == N
    assert all(torch.equal(found.tensor(n), cache.tensor(n)) for n in cache.shards[0])
    with pytest.raises(ArtifactError, match="holds no features"):
        FeatureCache.open(tmp_path / "nowhere")


def test_writing_to_what_was_mapped_leaves_the_file_alone(tmp_path: Path) -> None:
    cache = cache_features(extraction(), images(), tmp_path / "c")
    before = contents(tmp_path / "c")
    for shard in cache.shards:
        shard["original"][:] = 7
    assert contents(tmp_path / "c") == before


def test_no_room_is_said_before_anything_is_computed(
    tmp_path: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = extraction()
    cache_features(made, images(SHARD), tmp_path / "c")
    encoded.clear()
    needed = (N - SHARD) * made.bytes_per_image
    for free, fits in ((needed - 9000, False), (needed, True)):
        disk = SimpleNamespace(total=10**9, used=10**9 - free, free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _path, disk=disk: disk)
        if fits:
            cache_features(made, images(), tmp_path / "c")
        else:
            with pytest.raises(ConfigError, match=r"the features take .* use fewer images"):
                cache_features(made, images(), tmp_path / "c")
        assert bool(encoded) is fits


def test_bytes_are_those_of_the_files_but_for_their_headers(tmp_path: Path) -> None:
    made = extraction()
    cache_features(made, images(), tmp_path / "c")
    size = sum(len(content) for content in contents(tmp_path / "c").values())
    assert 0 <= size - N * made.bytes_per_image < 3 * 1024
    assert np.isclose(made.bytes_per_image, (2 * 16 + 1) * 24 * 2 + 4 * 64)
