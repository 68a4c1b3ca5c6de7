"""A hub that cannot be reached: one line, within five seconds, whatever is wrong with it."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from vitscope.backbones import hub
from vitscope.backbones.hub import fetch_weights
from vitscope.errors import BackboneError

PATIENCE_SECONDS = 5.0


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    return tmp_path


def at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take ``endpoint`` for the hub."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_url", lambda repo, file, **_: f"{endpoint}/{repo}/{file}"
    )


def refused(match: str) -> None:
    started = time.monotonic()
    with pytest.raises(BackboneError, match=match) as caught:
        fetch_weights("timm/some", name="dinov2-b")
    assert time.monotonic() - started < PATIENCE_SECONDS
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("the weights of dinov2-b could not be fetched")
    assert message.endswith("set backbone.weights (--weights) to a local checkpoint file")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        yield server.getsockname()[1]


@pytest.fixture
def failing_port() -> Iterator[int]:
    """A server that answers everything with status 503, which the hub's client would retry."""

    class Failing(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(503)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Failing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("empty_cache")
def test_a_silent_hub(silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 1.0)
    at(f"http://127.0.0.1:{silent_port}", monkeypatch)
    refused("did not answer in 1 s|timed out")


@pytest.mark.usefixtures("empty_cache")
def test_a_failing_hub(failing_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    at(f"http://127.0.0.1:{failing_port}", monkeypatch)
    refused("answers with status 503")


@pytest.mark.usefixtures("empty_cache")
def test_a_closed_port(monkeypatch: pytest.MonkeyPatch) -> None:
    at("http://127.0.0.1:9", monkeypatch)
    refused("cannot be reached")


@pytest.mark.usefixtures("empty_cache")
def test_offline_by_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused("HF_HUB_OFFLINE is set")


def test_the_default_patience_leaves_room_below_five_seconds() -> None:
    assert hub.ANSWER_SECONDS <= 4


def test_a_cached_file_needs_no_hub(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = empty_cache / "models--timm--some"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    file = folder / "snapshots" / "abc" / "model.safetensors"
    file.write_bytes(b"weights")
    assert fetch_weights("timm/some", name="dinov2-b") == file


@pytest.mark.usefixtures("empty_cache")
def test_files_are_tried_in_order_and_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(_repo: str, file: str, **_: Any) -> str:
        asked.append(file)
        raise EntryNotFoundError(f"404: no {file}")

    monkeypatch.setattr(hub, "require_answer", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    refused("timm/some holds none of model.safetensors, open_clip_model.safetensors")
    assert asked == list(hub.HUB_WEIGHTS)


@pytest.mark.usefixtures("empty_cache")
def test_a_hub_that_goes_away_is_not_taken_for_a_missing_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("An error happened while trying to locate the file.\nMore")

    monkeypatch.setattr(hub, "require_answer", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    refused("An error happened while trying to locate the file")
