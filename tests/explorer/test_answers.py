"""What the explorer answers, and what it refuses: names, addresses, bodies, files."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient
from tests.explorer.explored_run import (
    CLASSES,
    HANDLER,
    NAMES,
    SCRIPT,
    TOKEN,
    client_of,
)  # fmt: skip

from vitscope.errors import ArtifactError
from vitscope.explorer import live, pictures
from vitscope.explorer.api import ASK_AGAIN
from vitscope.explorer.live import LiveRun, load_text_side
from vitscope.explorer.server import TOKEN_HEADER
from vitscope.pipeline import run_study, set_gamma
from vitscope.run import Run
from vitscope.stages.stage import Models
from vitscope.store.run_directory import RunDirectory
from vitscope.store.tables import read_table, write_table
from vitscope.study import load_study

PAGES = ("/a/", "/a/images", "/a/feature/0", "/a/image/0")


def jpeg(side: int = 60) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "teal").save(buffer, "JPEG")
    return buffer.getvalue()


def a_feature(reading: LiveRun) -> int:
    """A feature with a score and four top images."""
    return int(np.flatnonzero(reading.run.features["n_pairs"] >= 4)[0])


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_no_script_style_or_address_of_its_own(client: TestClient, page: str) -> None:
    answer = client.get(page)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    inline = re.findall(r"<script(?![^>]*(?:src=|application/json))", answer.text)
    assert inline == []
    assert not re.search(r"\sstyle=|<style|\son\w+=\"", answer.text)
    assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", answer.text)


def test_every_hostile_name_is_escaped_where_it_stands(
    client: TestClient, reading: LiveRun
) -> None:
    names = [ref.id for ref in reading.run.image_refs]
    assert all(any(bad in name for name in names) for bad in NAMES)
    listed = client.get("/a/images").text
    for position, name in enumerate(names):
        page = client.get(f"/a/image/{position}").text
        for text in (listed, page):
            if re.search("[<>&'\"]", name):
                assert name not in text
            escaped = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            assert escaped.replace("'", "&#39;").replace('"', "&#34;") in text
        for harm in (SCRIPT, HANDLER, CLASSES[0]):
            assert harm not in page
    assert "49" not in re.findall(r"\{\{ 7 \* 7 \}\} \$\{(\S+)\}", listed)
    assert "broken'</script>" not in client.get("/a/").text


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd",
        "/static/%2fetc%2fpasswd", "/a/image/..%2f..%2fetc%2fpasswd", "/a/image/-1",
        "/a/image/21", "/a/image/99999999999999999999", "/a/image/0/view/%2e%2e", "/a/image/x",
        "/a/image/0x0", "/a/upload/..%2fstudy.toml/view/plain", "/a/upload/0123/view/plain",
        "/c/", "/b/", "/a/feature/-1", "/a/feature/4096", "/a/feature/0/heat/99/plain",
        "/a/feature/0/heat/0/other", "/compare", "/compare/data", "/docs", "/openapi.json",
        "/a/study.toml", "/a/../study.toml", "/study.toml", "/a/image/1e3/thumbnail",
    ],
)  # fmt: skip
def test_no_address_leads_anywhere_else(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (404, 422)
    for secret in ("root:", "[images]", "import"):
        assert secret not in answer.text


def test_an_image_outside_the_roots_is_not_opened(copied_run: RunDirectory, tmp_path: Path) -> None:
    """A run directory from elsewhere may name any file of this machine as its image."""
    secret = tmp_path / "secret.png"
    Image.new("RGB", (88, 88), "red").save(secret)
    path = copied_run.images("train")
    table = read_table(path)
    roots = Path(str(table["path"][2])).parent
    table["path"][0] = str(secret)
    table["path"][1] = f"{roots}/../../../../{secret}"
    write_table(path, table, {"skipped": [], "digest": "x"})
    client = client_of(LiveRun(copied_run.root))
    for position in (0, 1):
        for part in ("thumbnail", "view/plain", "tokens"):
            answer = client.get(f"/a/image/{position}/{part}")
            assert answer.status_code == 422
            assert "outside the image folders" in answer.json()["error"]
    assert client.get("/a/image/2/thumbnail").status_code == 200


def test_pictures_are_drawn_and_kept_by_the_browser(client: TestClient, reading: LiveRun) -> None:
    feature = a_feature(reading)
    for path in (
        "/a/image/0/thumbnail", "/a/image/0/view/first", f"/a/feature/{feature}/heat/0/second",
        "/a/columns",
    ):  # fmt: skip
        first = client.get(path)
        assert first.status_code == 200, path
        again = client.get(path, headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get(path, headers={"if-none-match": '"other"'}).content == first.content
    assert first.headers["cache-control"] == ASK_AGAIN


def upload(client: TestClient, data: bytes, name: str = "a.jpg") -> Any:
    return client.post("/upload", content=data, headers={"x-file-name": name})


def test_a_dropped_in_picture_is_looked_at_under_its_escaped_name(client: TestClient) -> None:
    answer = upload(client, jpeg(), "%3Cscript%3Ealert(1)%3C%2Fscript%3E.jpg")
    key = answer.json()["key"]
    page = client.get(f"/a/upload/{key}").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.jpg" in page
    assert "<script>alert" not in page
    assert client.get(f"/a/upload/{key}/view/plain").headers["content-type"] == "image/jpeg"
    assert len(client.get(f"/a/upload/{key}/tokens").json()["norms"]) == 100


def test_what_is_no_picture_or_too_large_is_refused(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for data, said in (
        (b"", "empty"),
        (b"<svg onload=x>", "not an image"),
        (b"%!PS", "not"),
    ):
        answer = upload(client, data)
        assert (answer.status_code, said in answer.json()["error"]) == (422, True)
    monkeypatch.setattr(pictures, "MAX_UPLOAD_PIXELS", 1000)
    assert "too many pixels" in upload(client, jpeg()).json()["error"]
    monkeypatch.setattr("vitscope.explorer.api.MAX_UPLOAD_BYTES", 100)
    assert upload(client, jpeg()).status_code == 413


def test_pictures_dropped_in_long_ago_make_room(client: TestClient) -> None:
    keys = [upload(client, jpeg(20 + i)).json()["key"] for i in range(pictures.UPLOADS_KEPT + 1)]
    assert client.get(f"/a/upload/{keys[0]}").status_code == 404
    assert client.get(f"/a/upload/{keys[-1]}").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{", b"null", b'{"gamma": 2}', b'{"gamma": "0.3"}', b'{"gamma": NaN}', b"{}",
        b'{"gamma": 0.3, "folder": "/"}', b"[" * 100_000, b"\xff", b'{"gamma": true}',
    ],
)  # fmt: skip
def test_a_damaged_request_to_write_is_refused(copied_run: RunDirectory, body: bytes) -> None:
    before = copied_run.study.read_bytes()
    answer = client_of(LiveRun(copied_run.root)).post("/a/gamma", content=body)
    assert (answer.status_code, list(answer.json())) == (409, ["error"])
    assert copied_run.study.read_bytes() == before


def test_gamma_is_saved_as_the_partition_and_read_again(copied_run: RunDirectory) -> None:
    saving = LiveRun(copied_run.root)
    client, before = client_of(saving), saving.columns
    told = client.post("/a/gamma", json={"gamma": 0.125}).json()
    features = read_table(copied_run.features)
    cds, group = features["cds"], features["group"]
    assert (told["gamma"], told["source"]) == (0.125, "given")
    for name, mask in (("low", cds <= 0.125), ("high", cds > 0.125), ("unscored", np.isnan(cds))):
        assert told["groups"][name] == mask.sum() == (group == name).sum()
    assert load_study(copied_run.study).scope.gamma == 0.125
    assert Run(copied_run.root).partition.gamma == 0.125
    assert 'data-gamma="0.125"' in client.get("/a/").text
    assert list(saving.run.features["group"]) == list(group)
    assert saving.columns == before  # CDS and activity do not depend on γ
    proposed = client.post("/a/gamma", json={"gamma": None}).json()
    assert proposed["source"] != "given"
    assert load_study(copied_run.study).scope.gamma is None


def test_a_saved_gamma_is_what_the_study_with_that_line_gives(copied_run: RunDirectory) -> None:
    proposed = load_study(copied_run.study)
    set_gamma(copied_run.root, 0.125)
    written = proposed.model_copy(
        update={"scope": proposed.scope.model_copy(update={"gamma": 0.125})}
    )
    assert load_study(copied_run.study) == written
    redone = run_study(written, copied_run.root, only=["partition", "awcds"])
    assert redone["partition"].skipped
    assert not redone["awcds"].skipped  # what follows reads the new groups
    back = run_study(proposed, copied_run.root, only=["partition"])
    assert back["partition"].result.source != "given"


def test_without_the_token_nothing_is_written(copied_run: RunDirectory) -> None:
    client, before = client_of(LiveRun(copied_run.root)), copied_run.study.read_bytes()
    for headers in ({TOKEN_HEADER: ""}, {TOKEN_HEADER: TOKEN, "origin": "http://evil.example"}):
        assert client.post("/a/gamma", json={"gamma": 0.5}, headers=headers).status_code == 403
    assert copied_run.study.read_bytes() == before


def test_a_run_that_works_elsewhere_is_not_written_to(copied_run: RunDirectory) -> None:
    client, before = client_of(LiveRun(copied_run.root)), copied_run.study.read_bytes()
    with copied_run.locked():
        answer = client.post("/a/gamma", json={"gamma": 0.5})
    assert (answer.status_code, "is in use by" in answer.json()["error"]) == (409, True)
    assert copied_run.study.read_bytes() == before


def test_a_refused_gamma_leaves_the_study_as_it_was(copied_run: RunDirectory) -> None:
    saving, before = LiveRun(copied_run.root), copied_run.study.read_text()
    copied_run.stamp("score").unlink()  # after the explorer had started
    answer = client_of(saving).post("/a/gamma", json={"gamma": 0.5})
    assert "stage 'score'" in answer.json()["error"]
    assert copied_run.study.read_text() == before


def test_a_run_that_may_not_be_written_is_explored_all_the_same(
    copied_run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    for module in ("store.atomic.tempfile.mkstemp", "store.run_directory.FileLock"):
        monkeypatch.setattr(f"vitscope.{module}", refuse)
    client = client_of(LiveRun(copied_run.root))
    for path in (*PAGES, "/a/columns", "/a/image/0/tokens", "/a/feature/0/cooccurrence"):
        assert client.get(path).status_code == 200, path
    answer = client.post("/a/gamma", json={"gamma": 0.5})
    assert answer.json()["error"].startswith("cannot write in")
    assert upload(client, jpeg()).status_code == 200


def test_read_only_says_so_and_refuses(explored: RunDirectory) -> None:
    client = client_of(LiveRun(explored.root, read_only=True))
    assert "read-only" in client.get("/a/").text
    assert "may not write" in client.post("/a/gamma", json={"gamma": 0.5}).json()["error"]


def test_a_folder_that_is_no_finished_run_is_refused(
    copied_run: RunDirectory, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match="no run directory"):
        LiveRun(tmp_path)
    copied_run.stamp("partition").unlink()
    with pytest.raises(ArtifactError, match="stage 'partition' has not finished"):
        LiveRun(copied_run.root)


def test_models_that_cannot_be_loaded_are_an_answer_not_an_end(
    explored: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> Any:
        raise RuntimeError("the card fell out")

    monkeypatch.setattr(Models, "backbone", property(fail))
    client = client_of(LiveRun(explored.root))
    answer = client.get("/a/image/0/tokens")
    assert (answer.status_code, "the card fell out" in answer.json()["error"]) == (409, True)
    assert client.get("/a/state").json()["state"] == "failed"
    assert client.get("/a/").status_code == 200


def test_without_a_text_tower_the_pages_say_why_and_the_rest_works(
    explored: RunDirectory, reading: LiveRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = "no text tower: it was left at home"
    monkeypatch.setattr(live, "load_text_side", lambda *_: (None, why))
    client = client_of(LiveRun(explored.root))
    found = client.get("/a/image/0/tokens").json()
    assert (found["prediction"], found["no_text"]) == ([], why)
    removed = client.post("/a/image/0/remove", json={"group": "all"}).json()
    assert (removed["before"], removed["after"]) == ([], [])
    assert removed["pooled_cosine"] < 1
    words = client.get(f"/a/feature/{a_feature(reading)}/cooccurrence").json()["words"]
    assert words == {"why_not": why}


def test_a_tower_is_not_fetched_unasked(copied_run: RunDirectory) -> None:
    """Only a study that asks for zero-shot, or an embedded backbone, has a text side."""
    study = load_study(copied_run.study)
    backbone = study.backbone.model_copy(update={"name": "clip-b16"})
    text, why = load_text_side(study.model_copy(update={"backbone": backbone}), torch.device("cpu"))
    assert text is None
    assert "not fetched unasked" in why
