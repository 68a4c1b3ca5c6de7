"""SAEs from the hub, to the hub, and a hub that is not there."""

import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from tests.sae.formats.cases import FIXTURES, expected

from vitscope.errors import SaeError
from vitscope.sae.formats import hub
from vitscope.sae.formats.hub import HubAddress, parse_address
from vitscope.sae.formats.load import load_sae

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PATIENCE_SECONDS = 5.0
CASE = FIXTURES / "eai-sparsify-1.3.3" / "topk"


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    return tmp_path / "cache"


class FakeHub:
    """A repository that answers as the hub's client does, and notes what it is asked."""

    def __init__(self, files: dict[str, Path], cache: Path) -> None:
        self.files = files
        self.root = cache / "models--someone--saes" / "snapshots" / COMMIT
        self.asked: list[tuple[str, str | None]] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hub, "why_unreachable", lambda _: "")
        monkeypatch.setattr(
            huggingface_hub.HfApi,
            "list_repo_files",
            lambda _, repo, revision=None: ["README.md", *sorted(self.files)],
        )
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)

    def download(self, repo: str, file: str, *, revision: str | None = None) -> str:
        assert repo == "someone/saes"
        self.asked.append((file, revision))
        place = self.root / file
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.files[file], place)
        refs = self.root.parent.parent / "refs"
        refs.mkdir(exist_ok=True)
        (refs / (revision or "main")).write_text(COMMIT)
        return str(place)


def repository(cache: Path) -> FakeHub:
    layers = {
        f"{layer}/{file.name}": file
        for layer in ("layers.5", "layers.6")
        for file in CASE.iterdir()
    }
    return FakeHub({**layers, "layers.5/optimizer.txt": CASE / "cfg.json"}, cache)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf:a/b", HubAddress("a/b", "", None)),
        ("hf:a/b/", HubAddress("a/b", "", None)),
        ("hf:a-1/b.c/x/y@v1.0", HubAddress("a-1/b.c", "x/y", "v1.0")),
        ("hf:a/b/22_resid/1.pt", HubAddress("a/b", "22_resid/1.pt", None)),
        ("hf:a/b@refs/pr/3", HubAddress("a/b", "", "refs/pr/3")),
    ],
)
def test_addresses(text: str, address: HubAddress) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["hf:", "hf:a", "hf:a/b@", "hf:a/b/../c", "hf:a b/c", "hf:a/b c@"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(SaeError, match=r"write hf:owner/repo\[/folder\]\[@revision\]"):
        load_sae(text)


def test_one_folder_is_fetched_and_its_commit_recorded(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = repository(cache)
    fake.install(monkeypatch)
    sae = load_sae("hf:someone/saes/layers.5@v1")
    theirs = expected(CASE)
    torch.testing.assert_close(sae.encode(theirs.x), theirs.codes, rtol=1e-5, atol=1e-5)
    assert sae.info["revision"] == COMMIT
    assert sae.info["source"] == "hf:someone/saes/layers.5@v1"
    assert fake.asked == [("layers.5/sae.safetensors", "v1"), ("layers.5/cfg.json", COMMIT)]
    load_sae("hf:someone/saes/layers.5@v1")  # from the cache now
    assert len(fake.asked) == 2


def test_one_file_is_fetched_with_what_says_something_about_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = repository(cache)
    fake.install(monkeypatch)
    load_sae("hf:someone/saes/layers.6/sae.safetensors")
    assert [name for name, _ in fake.asked] == ["layers.6/sae.safetensors", "layers.6/cfg.json"]


def test_a_place_without_tensors_names_those_with(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository(cache).install(monkeypatch)
    with pytest.raises(SaeError, match=r"there are SAEs in layers\.5, layers\.6"):
        load_sae("hf:someone/saes")
    with pytest.raises(SaeError, match=r"holds no file of tensors$"):
        load_sae("hf:someone/saes/elsewhere")


@pytest.mark.usefixtures("cache")
def test_a_hub_that_is_not_there_is_one_line_within_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_url", lambda repo, file, **_: f"http://127.0.0.1:9/{repo}/{file}"
    )
    started = time.monotonic()
    with pytest.raises(SaeError) as caught:
        load_sae("hf:someone/saes")
    assert time.monotonic() - started < PATIENCE_SECONDS
    message = str(caught.value)
    assert "\n" not in message
    assert "cannot be reached" in message
    assert message.startswith("'hf:someone/saes' could not be fetched: http://127.0.0.1:9 cannot")
    assert "backbone" not in message
    assert message.endswith("download its folder by other means and give the path")


@pytest.mark.usefixtures("cache")
def test_offline_and_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SaeError, match="HF_HUB_OFFLINE is set"):
        load_sae("hf:someone/saes")

    def refuse(*_: Any, **__: Any) -> list[str]:
        raise HfHubHTTPError("401 Client Error.\nRepository Not Found", response=_no_response())

    monkeypatch.setattr(hub, "why_unreachable", lambda _: "")
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", refuse)
    with pytest.raises(SaeError, match="401 Client Error; download its folder") as caught:
        load_sae("hf:someone/saes")
    assert "\n" not in str(caught.value)


def _no_response() -> Any:
    return SimpleNamespace(headers={}, request=None)
