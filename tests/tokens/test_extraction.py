"""Shards on disk: the backbone's own tokens, the same bytes however the run went."""

from pathlib import Path

import pytest
import torch
from tests.tokens.extraction_parts import (
    BATCH,
    N_IMAGES,
    PLANTED,
    SHARD,
    Interrupting,
    Spoiling,
    extract,
    folder_bytes,
    picture_refs,
    pixels_of,
)

from vitscope.errors import BackboneError, ImageSetError
from vitscope.images.sources import ImageRef
from vitscope.store.atomic import read_json
from vitscope.store.tensors import load_tensors
from vitscope.tokens import extraction as module
from vitscope.tokens.encoding import LoaderOptions
from vitscope.tokens.sampling import ActivationSettings, draw_tokens

SETTINGS = ActivationSettings(tokens_per_image=7, draws=2)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_IMAGES", SHARD)


@pytest.fixture(scope="module")
def refs(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRef]:
    return picture_refs(tmp_path_factory.mktemp("pictures"))


def test_shards_hold_the_backbones_tokens_at_the_drawn_positions(
    refs: list[ImageRef], tmp_path: Path
) -> None:
    found = extract(refs, tmp_path)
    assert (found.n_images, found.n_tokens) == (N_IMAGES, N_IMAGES * 2 * 7)
    assert [file.name for file in found.files] == ["manifest.json", *_part_names(3)]
    shards = [load_tensors(file)[0] for file in found.files[1:]]
    tokens = torch.cat([shard["tokens"] for shard in shards])
    positions = torch.cat([shard["positions"] for shard in shards])
    assert (tokens.dtype, positions.dtype) == (torch.float16, torch.int32)
    assert tokens.shape == (N_IMAGES, 2, 7, PLANTED.site.width)
    for index, ref in enumerate(refs):
        own = PLANTED.tokens(pixels_of(ref)[None]).patch[0]
        for epoch in range(2):
            drawn = draw_tokens(SETTINGS, 196, seed=0, epoch=epoch, image_id=ref.id)
            assert positions[index, epoch].tolist() == drawn.tolist()
            expected = own[torch.from_numpy(drawn)]
            # one fp16 step: a batch may round the last bit of fp32 otherwise
            torch.testing.assert_close(
                tokens[index, epoch].float(), expected, atol=1e-4, rtol=2.0**-10
            )


def test_all_tokens_are_kept_once(refs: list[ImageRef], tmp_path: Path) -> None:
    options = ActivationSettings(tokens_per_image=0, draws=5)
    found = extract(refs[:2], tmp_path, settings=options)
    shard, _ = load_tensors(found.files[1])
    assert shard["tokens"].shape == (2, 1, 196, PLANTED.site.width)
    own = PLANTED.tokens(torch.stack([pixels_of(ref) for ref in refs[:2]])).patch
    assert torch.equal(shard["tokens"][:, 0], own.half())


def test_the_manifest_says_what_the_shards_are(refs: list[ImageRef], tmp_path: Path) -> None:
    extract(refs, tmp_path, seed=9, fingerprint="abc")
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["fingerprint"] == "abc"
    assert manifest["seed"] == 9
    assert (manifest["draws"], manifest["n_images"]) == (2, N_IMAGES)
    assert manifest["site"]["weights"] == PLANTED.site.weights
    assert [shard["n_images"] for shard in manifest["shards"]] == [5, 5, 2]
    assert [shard["first_image"] for shard in manifest["shards"]] == [
        refs[index].id for index in (0, 5, 10)
    ]


@pytest.mark.parametrize("at_call", [1, 2, 3, 5])
def test_a_killed_run_is_resumed_to_the_same_bytes(
    refs: list[ImageRef], tmp_path: Path, at_call: int
) -> None:
    extract(refs, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        extract(refs, tmp_path / "killed", backbone=Interrupting(at_call))
    resumed = Interrupting(at_call=-1)
    extract(refs, tmp_path / "killed", backbone=resumed)
    assert folder_bytes(tmp_path / "killed") == folder_bytes(tmp_path / "whole")
    # a shard of five images is two batches; only whole shards are spared
    spared = (at_call - 1) // 2
    assert resumed.calls == 5 - 2 * spared


def test_a_standing_extraction_is_not_done_again(refs: list[ImageRef], tmp_path: Path) -> None:
    extract(refs, tmp_path)
    before, counting = folder_bytes(tmp_path), Interrupting(at_call=-1)
    extract(refs, tmp_path, backbone=counting)
    assert counting.calls == 0
    assert folder_bytes(tmp_path) == before
    extract(refs, tmp_path, backbone=counting, fingerprint="two")
    assert counting.calls == 5


@pytest.mark.parametrize("damage", ["flipped", "truncated", "gone"])
def test_a_damaged_shard_alone_is_redone(refs: list[ImageRef], tmp_path: Path, damage: str) -> None:
    extract(refs, tmp_path)
    before, shard = folder_bytes(tmp_path), tmp_path / "part-000001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1000] ^= 1
    if damage == "gone":
        shard.unlink()
    else:
        shard.write_bytes(bytes(data) if damage == "flipped" else bytes(data[:-1000]))
    counting = Interrupting(at_call=-1)
    extract(refs, tmp_path, backbone=counting)
    assert counting.calls == 2
    assert folder_bytes(tmp_path) == before


def test_shards_of_a_larger_set_are_removed(refs: list[ImageRef], tmp_path: Path) -> None:
    extract(refs, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    extract(refs[:4], tmp_path, fingerprint="fewer")
    assert sorted(folder_bytes(tmp_path)) == ["manifest.json", "notes.txt", *_part_names(1)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e5])
@pytest.mark.parametrize("image", [0, 7])
def test_an_activation_that_does_not_fit_is_named_by_its_image(
    refs: list[ImageRef], tmp_path: Path, value: float, image: int
) -> None:
    with pytest.raises(BackboneError, match=rf"^{refs[image].id}: an activation of planted"):
        extract(refs, tmp_path, backbone=Spoiling(image, value))
    # the shards before it are kept, nothing half-written is
    assert sorted(folder_bytes(tmp_path)) == _part_names(image // SHARD)


def test_a_vanished_image_is_an_error_that_names_it(refs: list[ImageRef], tmp_path: Path) -> None:
    gone = ImageRef("gone.png", tmp_path / "gone.png", None)
    with pytest.raises(ImageSetError, match=r"gone.png changed since it was verified"):
        extract([*refs[:2], gone], tmp_path / "out")


def test_the_batch_size_does_not_show(
    refs: list[ImageRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(refs, tmp_path / "three")
    monkeypatch.setattr(
        "tests.tokens.extraction_parts.READING", LoaderOptions(BATCH + 2, workers=2)
    )
    extract(refs, tmp_path / "five")
    for one, other in zip(_part_names(3), _part_names(3), strict=True):
        first, _ = load_tensors(tmp_path / "three" / one)
        second, _ = load_tensors(tmp_path / "five" / other)
        assert torch.equal(first["positions"], second["positions"])
        torch.testing.assert_close(first["tokens"], second["tokens"], atol=1e-3, rtol=2.0**-10)


def _part_names(n: int) -> list[str]:
    return [f"part-{index:06d}.safetensors" for index in range(n)]
