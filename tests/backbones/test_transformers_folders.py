"""What the adapter of `transformers` takes from a folder, and where it finds one on the hub."""

from logging import INFO
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tests.backbones.parity_folders import (
    DEPTH,
    PATCH,
    SIDE,
    WEIGHTS,
    WIDTH,
    change_json,
    change_weights,
    load,
    refused,
    save_tiny,
)

from vitscope.backbones import transformers_loading
from vitscope.backbones.backbone import Site
from vitscope.store.atomic import file_checksum


@pytest.fixture
def vision(tmp_path: Path) -> Path:
    return save_tiny("clip-vision", tmp_path / "tiny")


def test_a_site_names_the_folder_the_class_and_the_weights(vision: Path) -> None:
    weights = file_checksum(vision / WEIGHTS)
    model = "transformers:tiny (CLIPVisionModel)"
    assert load(vision).site == Site(model, weights, 2, WIDTH, SIDE // PATCH, PATCH)
    assert load(f"{vision}/", layer="penultimate").site.layer == DEPTH - 1
    assert load(vision, layer=-1).site.layer == DEPTH


def test_a_folder_may_stand_in_for_the_hub(vision: Path) -> None:
    for weights in (vision, vision / WEIGHTS):
        site = load("someone/tiny-clip", weights=str(weights)).site
        assert site.model == "transformers:someone/tiny-clip (CLIPVisionModel)"
        assert site.weights == file_checksum(vision / WEIGHTS)


def test_shards_are_all_of_the_weights(tmp_path: Path) -> None:
    whole, shards = save_tiny("vit", tmp_path / "whole"), tmp_path / "shards"
    state = load_file(whole / WEIGHTS)
    shards.mkdir()
    (shards / "config.json").write_bytes((whole / "config.json").read_bytes())
    first = dict(sorted(state.items())[:10])
    second = {name: value for name, value in state.items() if name not in first}
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    index: dict[str, str] = {}
    for part, name in zip((first, second), names, strict=True):
        save_file(part, shards / name, metadata={"format": "pt"})
        index |= dict.fromkeys(part, name)
    change_json(shards / "model.safetensors.index.json", weight_map=index, metadata={})
    found, expected = load(shards), load(whole)
    for name, value in expected.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value)
    before = found.site.weights
    change = {name: value + 1 for name, value in second.items()}
    save_file(change, shards / names[1], metadata={"format": "pt"})
    assert load(shards).site.weights not in {before, expected.site.weights}
    (shards / names[1]).unlink()
    refused(f"index.json lists {names[1]}, which is not beside it", shards)
    too_long = "x" * 5000  # no file system would answer whether that is a file
    change_json(shards / "model.safetensors.index.json", weight_map={"w": too_long}, metadata={})
    refused("lists xxx", shards)


def test_a_pickled_state_dict(vision: Path) -> None:
    expected = load(vision).model.state_dict()
    torch.save(load_file(vision / WEIGHTS), vision / "pytorch_model.bin")
    (vision / WEIGHTS).unlink()
    found = load(vision)
    assert found.site.weights == file_checksum(vision / "pytorch_model.bin")
    for name, value in found.model.state_dict().items():
        assert torch.equal(value, expected[name])


def test_half_precision_weights_are_widened(vision: Path) -> None:
    state = {name: value.half() for name, value in load_file(vision / WEIGHTS).items()}
    save_file(state, vision / WEIGHTS, metadata={"format": "pt"})
    assert {p.dtype for p in load(vision).model.parameters()} == {torch.float32}


def test_what_no_image_passes_through_may_be_there_or_not(vision: Path, tmp_path: Path) -> None:
    change_weights(vision, embeddings__position_ids=torch.arange(26)[None])
    load(vision)
    dinov2 = save_tiny("dinov2", tmp_path / "dinov2")
    change_weights(dinov2, embeddings__mask_token=None)
    load(dinov2)


def test_transformers_stays_as_loud_as_it_was(
    vision: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.backbones.untyped import transformers

    logging = transformers.utils.logging

    logging.enable_progress_bar()
    before = logging.get_verbosity()
    logging.set_verbosity_info()
    load(vision)
    after = logging.get_verbosity()
    logging.set_verbosity(before)
    assert after == INFO
    assert logging.is_progress_bar_enabled()
    shown = capsys.readouterr()
    assert shown.out + shown.err == ""


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def in_cache(cache: Path, repo: str, commit: str) -> Path:
    """Return the empty snapshot folder of a repository's main branch."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    return folder / "snapshots" / commit


def test_what_is_cached_needs_no_hub(empty_cache: Path) -> None:
    save_tiny("clip-vision", in_cache(empty_cache, "someone/tiny", "0123abc"))
    site = load("someone/tiny").site
    assert site.model == "transformers:someone/tiny (CLIPVisionModel)"
    assert site.weights == "hub:someone/tiny@0123abc"


def test_a_hub_that_cannot_be_reached(empty_cache: Path) -> None:
    refused(r"could not be fetched .* \(HF_HUB_OFFLINE is set\).*backbone.weights", "some/tiny")
    # half of a download is not a model
    half = save_tiny("clip-vision", in_cache(empty_cache, "someone/tiny", "0123abc"))
    (half / WEIGHTS).unlink()
    refused("could not be fetched", "someone/tiny")


@pytest.mark.parametrize("pickled", [False, True])
def test_downloading(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pickled: bool
) -> None:
    source = save_tiny("clip-vision", tmp_path / "source")
    if pickled:
        torch.save(load_file(source / WEIGHTS), source / "pytorch_model.bin")
        (source / WEIGHTS).unlink()
    folder = empty_cache / "0123abc"
    asked: list[str] = []

    def download(repo: str, *, allow_patterns: list[str]) -> str:
        assert repo == "someone/tiny"
        asked.extend(allow_patterns)
        folder.mkdir(parents=True, exist_ok=True)
        for file in source.iterdir():
            if any(file.match(pattern) for pattern in allow_patterns):
                (folder / file.name).write_bytes(file.read_bytes())
        return str(folder)

    monkeypatch.setattr(transformers_loading, "require_answer", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load("someone/tiny").site.weights == "hub:someone/tiny@0123abc"
    assert ("pytorch_model.bin" in asked) == pickled


@pytest.mark.usefixtures("empty_cache")
def test_a_download_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise OSError("the disk is full\nand more")

    monkeypatch.setattr(transformers_loading, "require_answer", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    refused(r"could not be fetched .* \(the disk is full\)", "someone/tiny")
