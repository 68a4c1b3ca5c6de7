"""Cached features against a loop over images, reading for reading; targets under the same crop."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.probes.probe_vit import SIDE, M, small_backbone, small_sae

from vitscope.backbones.backbone import BlockTokens
from vitscope.backbones.timm_vit import TimmBackbone
from vitscope.errors import ConfigError, SaeError
from vitscope.images.loading import to_square
from vitscope.probes.features import FeatureExtraction, cache_features
from vitscope.probes.labelled_images import EvenSubset, LabelledScenes, eigen_crop, map_to_square
from vitscope.probes.settings import (
    ClassificationSettings,
    DepthSettings,
    HeadSettings,
    SegmentationSettings,
)
from vitscope.removal.remove import remove
from vitscope.sae.model import SparseAutoencoder

N = 7
GROUPS = {"low-removed": list(range(0, M, 2)), "high-removed": list(range(1, M, 2))}


def scenes(task: Any, n: int = N) -> LabelledScenes:
    return LabelledScenes(task, 0, n, seed=4, side=40)


def extraction(task: Any, settings: HeadSettings, **changes: Any) -> FeatureExtraction:
    values: dict[str, Any] = {"batch_size": 3, "workers": 2, "shard_images": 4}
    values |= {"cache": "float32"} | changes
    return FeatureExtraction(small_backbone(), small_sae(), GROUPS, task, settings, **values)


def one_by_one(
    made: FeatureExtraction, images: Any, variant: str
) -> list[tuple[torch.Tensor, ...]]:
    """(patch tokens read, pooled output of the unmodified pass, mean of its patches)."""
    found: list[tuple[torch.Tensor, ...]] = []
    for index in range(len(images)):
        pixels = to_square(images.load(index)[0], SIDE)[None]
        plain = made.backbone.tokens(pixels)
        patch = plain.patch
        if variant != "original":
            patch = remove(made.sae, patch, GROUPS[variant], keep_error=made.keep_error)
        whole = made.backbone.resume(plain)
        unmodified = plain.patch
        if made.settings.probe_at == "final":
            patch = made.backbone.resume(BlockTokens(patch, plain.prefix)).patch
            unmodified = whole.patch
        found.append((patch[0], whole.pooled[0], unmodified[0].mean(0)))
    return found


@pytest.mark.parametrize("probe_at", ["designated", "final"])
@pytest.mark.parametrize("keep_error", [True, False])
def test_classification_reads_the_mean_of_patch_tokens(
    tmp_path: Path, probe_at: Any, keep_error: bool
) -> None:
    made = extraction(
        "classification", ClassificationSettings(probe_at=probe_at), keep_error=keep_error
    )
    images = scenes("classification")
    cache = cache_features(made, images, tmp_path / "c")
    for variant in made.variants:
        expected = [patch.mean(0) for patch, _, _ in one_by_one(made, images, variant)]
        found = cache.tensor(variant)
        torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)
    labels = [int(images.load(index)[1]) for index in range(N)]
    assert cache.tensor("target").tolist() == labels
    assert not torch.allclose(cache.tensor("low-removed"), cache.tensor("high-removed"))


@pytest.mark.parametrize("token", ["pooled", "mean", "none"])
@pytest.mark.parametrize("probe_at", ["designated", "final"])
def test_depth_has_the_image_token_of_the_unmodified_pass(
    tmp_path: Path, token: Any, probe_at: Any
) -> None:
    made = extraction("depth", DepthSettings(image_token=token, probe_at=probe_at))
    images = scenes("depth")
    cache = cache_features(made, images, tmp_path / "c")
    for variant in made.variants:
        rows = one_by_one(made, images, variant)
        found = cache.tensor(variant)
        torch.testing.assert_close(found, torch.stack([r[0] for r in rows]), rtol=1e-4, atol=1e-5)
    assert ("image_token" in cache.shards[0]) == (token != "none")
    if token != "none":
        column = {"pooled": 1, "mean": 2}[token]
        beside = cache.tensor("image_token")
        expected = torch.stack([row[column] for row in one_by_one(made, images, "original")])
        torch.testing.assert_close(beside, expected, rtol=1e-4, atol=1e-5)


def test_masks_come_under_the_same_crop_as_their_pictures(tmp_path: Path) -> None:
    made = extraction("segmentation", SegmentationSettings(pixels=16))
    cache = cache_features(made, scenes("segmentation"), tmp_path / "c")
    masks = cache.tensor("target")
    assert masks.shape == (N, 16, 16) and masks.dtype == torch.uint8 and masks.max() > 1


@pytest.mark.parametrize("size", [(60, 40), (40, 60), (33, 57), (64, 64)])
@pytest.mark.parametrize("stretch", [False, True])
@pytest.mark.parametrize("crop_share", [1.0, 0.875])
def test_a_map_takes_the_way_of_its_picture(
    size: tuple[int, int], stretch: bool, crop_share: float
) -> None:
    width, height = size
    x, y = np.meshgrid(np.linspace(20, 230, width), np.linspace(20, 230, height))
    picture = Image.fromarray(np.rint(np.stack([x, y, 0 * x], -1)).astype(np.uint8))
    seen = to_square(picture, 32, crop_share, stretch=stretch).float()
    for channel, values in enumerate((x, y)):
        found = map_to_square(values, 32, crop_share, stretch=stretch, pixels=32)
        step = 210 / min(size)
        # half a pixel for taking the nearest, one grey level for rounding
        assert np.abs(found - seen[channel].numpy())[2:-2, 2:-2].max() <= 0.5 * step + 1.6
    half = map_to_square(x, 32, crop_share, stretch=stretch, pixels=16)
    large = map_to_square(x, 32, crop_share, stretch=stretch, pixels=32)
    assert np.abs(half - large.reshape(16, 2, 16, 2).mean((1, 3))).max() <= 2 * 210 / min(size)
    assert set(np.unique(half)) <= set(np.unique(x))  # no value between two others


def test_eigens_crop_is_that_of_a_nyu_picture() -> None:
    inside = eigen_crop(np.ones((480, 640), np.float32))
    rows, columns = np.nonzero(inside)
    assert (rows.min(), rows.max() + 1) == (45, 471)
    assert (columns.min(), columns.max() + 1) == (41, 601)
    assert inside.sum() == (471 - 45) * (601 - 41)


def test_a_killed_pass_goes_on_and_nothing_is_encoded_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = extraction("classification", ClassificationSettings())
    whole = cache_features(made, scenes("classification"), tmp_path / "whole")
    counted: list[int] = []
    encoded: list[int] = []
    tokens, encode = TimmBackbone.tokens, SparseAutoencoder.encode

    def counting(self: TimmBackbone, images: torch.Tensor) -> BlockTokens:
        if sum(counted) >= 4:
            raise KeyboardInterrupt
        counted.append(len(images))
        return tokens(self, images)

    monkeypatch.setattr(TimmBackbone, "tokens", counting)
    with pytest.raises(KeyboardInterrupt):
        cache_features(made, scenes("classification"), tmp_path / "c")
    counted.clear()
    counted.append(-100)
    monkeypatch.setattr(
        SparseAutoencoder, "encode", lambda s, x: encoded.append(len(x)) or encode(s, x)
    )
    cache = cache_features(made, scenes("classification"), tmp_path / "c")
    # the second shard's three; three variants, one encoding
    assert counted[1:] == [3] and encoded == [3 * 16]
    for variant in made.variants:
        assert torch.equal(cache.tensor(variant), whole.tensor(variant))


def test_what_decides_the_features_decides_the_cache() -> None:
    images = scenes("classification")
    made = extraction("classification", ClassificationSettings())
    keys = {made.fingerprint(images, cropped=False)}
    keys.add(made.fingerprint(scenes("classification", 6), cropped=False))
    keys.add(made.fingerprint(EvenSubset(images, 6), cropped=False))
    for changed in (
        extraction("classification", ClassificationSettings(probe_at="final")),
        extraction("classification", ClassificationSettings(), keep_error=False),
        extraction("classification", ClassificationSettings(), stretch=True),
        extraction("classification", ClassificationSettings(), cache="float16"),
        FeatureExtraction(small_backbone(1), small_sae(), GROUPS, "classification", HeadSettings()),
        FeatureExtraction(small_backbone(), small_sae(1), GROUPS, "classification", HeadSettings()),
        FeatureExtraction(
            small_backbone(), small_sae(), {"x": [1]}, "classification", HeadSettings()
        ),
    ):
        keys.add(changed.fingerprint(images, cropped=False))
    assert len(keys) == 10
    same = extraction("classification", ClassificationSettings(batch_size=3), batch_size=1)
    assert same.fingerprint(images, cropped=False) in keys


def test_features_that_half_precision_cannot_hold_are_refused(tmp_path: Path) -> None:
    backbone = small_backbone()
    with torch.no_grad():
        backbone.model.get_submodule("blocks.1.mlp.fc2").get_parameter("bias").fill_(1e5)
    made = FeatureExtraction(backbone, small_sae(), {}, "classification", ClassificationSettings())
    with pytest.raises(ConfigError, match=r"a feature of 'original' is .* beyond float16"):
        cache_features(made, scenes("classification"), tmp_path / "c")


def test_groups_are_checked_before_any_image() -> None:
    args = (small_backbone(), small_sae())
    with pytest.raises(SaeError, match=f"feature {M}"):
        FeatureExtraction(*args, {"x": [M]}, "classification", HeadSettings())
    with pytest.raises(ConfigError, match="'original' names the tokens as they are"):
        FeatureExtraction(*args, {"original": [1]}, "classification", HeadSettings())


def test_fewer_pictures_are_spread_evenly() -> None:
    few = EvenSubset(scenes("classification"), 3)
    assert few.ids == ("4-0000000", "4-0000002", "4-0000004") and len(few) == 3
    assert few.load(1)[1] == scenes("classification").load(2)[1]
