"""Scenes as an image set: names, labels, rendering, and what the errors say."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vitscope.embedded.scene import SceneAddress, render_scene, scene_address
from vitscope.errors import ImageSetError
from vitscope.images import sources
from vitscope.images.loading import load_batches
from vitscope.images.sources import ImageFolder, SceneSet, open_image, open_image_set
from vitscope.images.verify import read_image_table, verify_images, write_image_table

MANY = 10**9


def test_a_reference_renders_its_own_scene() -> None:
    scenes = SceneSet(40, seed=3, side=24)
    for index in (0, 7, 39):
        pixels = np.asarray(open_image(scenes[index], max_pixels=MANY))
        expected = render_scene(3, index, 24)
        np.testing.assert_array_equal(pixels, expected.image.transpose(1, 2, 0))
        assert scenes[index].label == expected.labels["place"]
    assert len({ref.id for ref in scenes}) == 40


def test_what_a_study_writes_is_what_python_writes() -> None:
    written = open_image_set(Path("scenes:30?seed=5&side=16"), limit=7)
    assert written.refs == SceneSet(30, seed=5, side=16, limit=7).refs
    assert open_image_set(Path("scenes:3")).refs == SceneSet(3).refs
    assert len(written.refs) == 7
    assert written.refs[1].path == SceneAddress(5, 16, 30 // 7).path


def test_addresses_survive_the_way_to_a_table_and_back(tmp_path: Path) -> None:
    verified = verify_images(SceneSet(5, side=16).refs, workers=1, max_pixels=MANY)
    assert verified.sizes == ((16, 16),) * 5 and not verified.skipped
    write_image_table(tmp_path / "images.parquet", verified)
    again = read_image_table(tmp_path / "images.parquet")
    assert again.usable == verified.usable and again.digest == verified.digest
    assert scene_address(again.usable[4].path) == SceneAddress(0, 16, 4)


def test_files_are_files_and_scenes_are_scenes(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "a.png").touch()
    assert isinstance(open_image_set(tmp_path / "scenes"), ImageFolder)
    assert scene_address(tmp_path / "scenes:0@16" / "4") is None


def test_batches_hold_scenes_in_order() -> None:
    scenes = SceneSet(5, seed=1, side=16)

    def prepare(image: object) -> torch.Tensor:
        return torch.from_numpy(np.array(image).transpose(2, 0, 1))

    loaded = [
        row
        for batch in load_batches(scenes.refs, prepare, batch_size=2, workers=2, max_pixels=MANY)
        for row in batch.images
    ]
    for index, row in enumerate(loaded):
        np.testing.assert_array_equal(row.numpy(), render_scene(1, index, 16).image)


def test_checksums_and_listings_tell_sets_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def state(**options: int) -> tuple[str, str]:
        scenes = SceneSet(6, **options)
        return scenes.listing_digest, verify_images(scenes.refs, workers=1, max_pixels=MANY).digest

    usual = state(seed=1, side=16)
    assert usual == state(seed=1, side=16)
    assert all(a != b for a, b in zip(usual, state(seed=2, side=16), strict=True))
    assert all(a != b for a, b in zip(usual, state(seed=1, side=17), strict=True))
    monkeypatch.setattr(sources, "RENDERER", -1)
    assert state(seed=1, side=16)[0] != usual[0]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("scenes:", "is no set of scenes; write scenes:N"),
        ("scenes:ten", "is no set of scenes"),
        ("scenes:10@3", "is no set of scenes"),
        ("scenes:10?sed=3", "'sed=3' is not understood"),
        ("scenes:10?seed=-3", "'seed=-3' is not understood"),
        ("scenes:10?side=", "'side=' is not understood"),
        ("scenes:0", "n = 0, but it must be 1 or more"),
        ("scenes:3?side=0", "side = 0, but it must be 1 or more"),
    ],
)
def test_a_wrong_name_is_refused(name: str, says: str) -> None:
    with pytest.raises(ImageSetError, match=says.replace("?", r"\?")):
        open_image_set(Path(name))
