"""The folder for the hub, and its upload, which nothing but the command starts."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from tests.sae.formats.cases import FIXTURES, expected
from tests.sae.formats.make_exports import SITE, exported_sae

from vitscope.errors import SaeError
from vitscope.sae.formats import hub
from vitscope.sae.formats.hub import push_sae
from vitscope.sae.formats.hub_folder import SaeEvidence, write_hub_folder
from vitscope.sae.formats.load import load_sae
from vitscope.store.tables import read_table, write_table

METRICS: dict[str, dict[str, float | None]] = {
    "all": {
        "n": 50000,
        "fvu": 0.1234567,
        "l0": 30.1,
        "cosine": 0.95,
        "fvu_own_mean": 0.13,
        "x": math.nan,
    },
    "outlier": {"n": 120, "fvu": 0.02, "l0": 12.0, "cosine": 0.99, "fvu_own_mean": None},
}
FILES = [
    "README.md",
    "features.parquet",
    "sae.json",
    "sae.safetensors",
    "saelens/cfg.json",
    "saelens/sae_weights.safetensors",
]


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    table = tmp_path / "columns.parquet"
    write_table(table, {"feature": np.arange(32), "cds": np.linspace(0, 1, 32)}, {})
    evidence = SaeEvidence(METRICS, table, "c0ffee", "ImageNet-1K | validation", "mit")
    write_hub_folder(exported_sae("threshold"), tmp_path / "ready", evidence)
    return tmp_path / "ready"


def test_the_folder_is_an_sae_with_all_that_goes_with_it(ready: Path) -> None:
    sae, x = exported_sae("threshold"), expected(FIXTURES / "exported-to-sae-lens/threshold").x
    own, saelens = load_sae(ready), load_sae(ready / "saelens")
    assert own.encode(x).equal(sae.encode(x))
    assert saelens.encode(x).equal(sae.encode(x))
    assert own.site == SITE
    assert read_table(ready / "features.parquet")["cds"][-1] == 1.0
    assert sorted(str(p.relative_to(ready)) for p in ready.rglob("*") if p.is_file()) == FILES


def test_the_readme_says_what_a_user_needs(ready: Path) -> None:
    text = (ready / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: vitscope\n")
    assert "license: mit" in text.split("---")[1]
    for said in (
        "32 features of width 8",
        "`vit_tiny.made_up`",
        "residual stream after block 10",
        "4 × 4 patches of 8 pixels",
        "| all patch tokens (A) | 0.1235 | 30.1 | 0.95 | 0.13 | 50,000 |",
        "| outlier tokens (O) | 0.02 | 12 | 0.99 | – | 120 |",
        "mean over all evaluated tokens",
        "ImageNet-1K | validation",
        "`c0ffee`",
        "features.parquet",
        "dictionary_learning BatchTopKSAE",
        "saelens/",
    ):
        assert said in text, said


def test_without_evidence_it_says_so(tmp_path: Path) -> None:
    sae = load_sae(FIXTURES / "clipscope-0.1.8" / "topk")
    write_hub_folder(sae, tmp_path, SaeEvidence({}))
    text = (tmp_path / "README.md").read_text()
    for said in (
        "**Where it reads is not recorded.**",
        "Not evaluated.",
        "images: not recorded",
        "hash: not recorded",
        "There is no SAELens form: SAELens rectifies",
    ):
        assert said in text
    assert not (tmp_path / "saelens").exists()


def test_a_feature_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SaeError, match="vitscope score"):
        write_hub_folder(exported_sae("relu"), tmp_path, SaeEvidence({}, tmp_path / "none.parquet"))
    assert list(tmp_path.iterdir()) == []


class Recorder:
    """Stands for the hub's client, and notes what it is asked to do."""

    calls: list[tuple[str, dict[str, Any]]]

    def __init__(self) -> None:
        self.calls = []

    def create_repo(self, repo_id: str, **options: Any) -> None:
        self.calls.append(("create_repo", {"repo_id": repo_id, **options}))

    def upload_folder(self, **options: Any) -> Any:
        self.calls.append(("upload_folder", options))
        return SimpleNamespace(commit_url="https://hub/commit/1")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: recorder)
    return recorder


def test_a_dry_run_sends_nothing_and_asks_nobody(
    ready: Path, client: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "why_unreachable", lambda _: pytest.fail("the hub was asked"))
    planned = push_sae(ready, "me/sae", dry_run=True)
    assert [name for name, _ in planned.files] == FILES
    assert planned.n_bytes == sum((ready / name).stat().st_size for name in FILES)
    assert (planned.url, planned.private) == ("", True)
    assert client.calls == []


def test_a_push_uploads_what_the_dry_run_listed(
    ready: Path, client: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "why_unreachable", lambda _: "")
    done = push_sae(ready, "me/sae", dry_run=False, private=False)
    (made, of_repo), (sent, of_folder) = client.calls
    assert (made, sent) == ("create_repo", "upload_folder")
    assert of_repo == {"repo_id": "me/sae", "private": False, "exist_ok": True}
    assert (of_folder["repo_id"], of_folder["folder_path"]) == ("me/sae", ready)
    assert of_folder["allow_patterns"] == FILES
    assert done.url == "https://hub/commit/1"


def test_what_is_not_ready_is_not_sent(
    ready: Path, client: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "why_unreachable", lambda _: "")

    def refused(match: str, repo: str = "me/sae") -> None:
        with pytest.raises(SaeError, match=match) as caught:
            push_sae(ready, repo, dry_run=False)
        assert "\n" not in str(caught.value)

    refused("no repository of the hub", "not a name")
    (ready / ".env").write_text("token")
    refused(r"\.env is a link or hidden file")
    (ready / ".env").unlink()
    (ready / "README.md").rename(ready / "other")
    refused(r"has no README\.md")
    (ready / "sae.safetensors").write_bytes(b"x")
    refused("damaged")
    assert client.calls == []


@pytest.mark.usefixtures("client")
def test_a_hub_that_is_not_there_or_refuses(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SaeError, match=r"HF_HUB_OFFLINE is set.*nothing was sent$"):
        push_sae(ready, "me/sae", dry_run=False)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("403 Forbidden.\nmore")

    monkeypatch.setattr(hub, "why_unreachable", lambda _: "")
    monkeypatch.setattr(Recorder, "create_repo", refuse)
    with pytest.raises(SaeError, match="403 Forbidden; log in"):
        push_sae(ready, "me/sae", dry_run=False)
