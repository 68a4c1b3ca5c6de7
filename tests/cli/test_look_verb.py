"""`vitscope look`: a folder of photographs in one command, and what it says of them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from tests.cli.command_line import CommandLine

from vitscope.embedded.files import shipped_sae
from vitscope.errors import BackboneError
from vitscope.images.sources import SceneSet, open_image
from vitscope.look import looking
from vitscope.look.looking import FIRST_FROM, plan_look
from vitscope.look.summary import LookSummary, feature_rows, look_notes, summarise_look
from vitscope.notebook import open_run

MODEL = ("--model", "scenes-vit", "--no-open")


def write_scenes(folder: Path, n: int, side: int = 88) -> None:
    folder.mkdir()
    for index, ref in enumerate(SceneSet(n, seed=1, side=side)):
        open_image(ref, max_pixels=10**6).save(folder / f"IMG_{index}.png")


@pytest.fixture(scope="module")
def holiday(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that such folders have, by true formats."""
    folder = tmp_path_factory.mktemp("look") / "holiday"
    write_scenes(folder, 12)
    first = Image.open(folder / "IMG_0.png")
    first.save(folder / "IMG_0.avif", quality=90)
    first.resize((400, 88)).save(folder / "panorama.jp2")
    first.resize((1100, 1100)).save(folder / "large.jpg")
    (folder / "copy.png").write_bytes((folder / "IMG_3.png").read_bytes())
    (folder / "no suffix").write_bytes((folder / "IMG_5.png").read_bytes()[:-7] + b"\0" * 7)
    (folder / "._IMG_1.png").write_bytes(b"\0\5\x16\7")
    (folder / "film.mov").write_bytes(b"\0\0\0\x14ftypqt  ")
    (folder / "raw.NEF").write_bytes(b"MM\0*")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.fixture
def looked(vitscope: CommandLine, holiday: Path) -> Path:
    """A run over it, shared by way of its own resumption."""
    out = holiday.parent / "run"
    ended = vitscope("look", str(holiday), *MODEL, "--out", str(out))
    assert ended.code == 0, ended.err
    return out


def test_a_folder_of_everything_is_told_and_scored(vitscope: CommandLine, holiday: Path) -> None:
    out = holiday.parent / "run"
    ended = vitscope("look", str(holiday), *MODEL, "--out", str(out))
    assert ended.code == 0, ended.err
    told = " ".join(ended.err.split())
    assert "model scenes-vit: nothing to fetch" in told
    assert "nothing is sent anywhere" in told
    assert "the same file as another" in told
    assert "camera raw is not read" in told
    assert "1 are more than twice as long as wide" in told
    assert "look nearly alike" in told
    assert "a first look" not in told  # too few for a first part
    assert "Traceback" not in told
    skipped = (out / "skipped.csv").read_text()
    assert "copy.png,the same file as IMG_3.png" in skipped
    assert "raw.NEF,camera raw" in skipped and "broken.jpg," in skipped
    assert "film.mov" not in skipped and "._IMG_1" not in skipped
    shown = " ".join(ended.out.split())
    assert re.search(r"\d+ (local|global)\?? \d\.\d{3} ± \d\.\d{3}", shown)
    assert "features have a score" in shown and "went out in one view" in shown
    assert (out / "photographs" / "large.jpg").is_file()


def test_a_second_call_redoes_nothing(vitscope: CommandLine, holiday: Path, looked: Path) -> None:
    ended = vitscope("look", str(holiday), *MODEL, "--out", str(looked), "--json")
    assert ended.code == 0
    assert not re.search("✓", ended.err)
    found = json.loads(ended.out)
    assert found["photographs"]["n_wide"] == 1
    assert found["n_photographs"] == found["photographs"]["n_used"]
    assert found["local"]["n"] + found["high"]["n"] == found["n_scored"]


def test_the_summary_is_that_of_the_run(looked: Path) -> None:
    run = open_run(looked)
    found = summarise_look(run)
    cds = run.partition.cds
    assert found.n_scored == np.isfinite(cds).sum()
    assert found.missed_share == pytest.approx(
        run.scoring.scores.missed[np.isfinite(cds)[run.pairs["feature"]]].sum()
        / run.features["n_pairs"][np.isfinite(cds)].sum()
    )
    for one in found.named:
        assert cds[one.feature] == one.cds
        assert (one.group == "local") == (one.cds <= found.gamma)
    assert len(feature_rows(found)[1]) == len(found.named)


def figures(**changed: object) -> LookSummary:
    from vitscope.look.summary import GroupFigures

    group = GroupFigures(20, 3, missed_share=0.1, flicker_share=0.9, over_null=0.3)
    given = {
        "n_photographs": 30, "n_features": 100, "n_firing": 60, "n_scored": 40,
        "median_pairs": 6.0, "missed_share": 0.2, "gamma": 0.3, "two_modes": False,
        "half_spearman": 0.3, "local": group, "high": group, "moves_farther": 0.5, "named": (),
    }  # fmt: skip
    return LookSummary(**{**given, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "said", "unsaid"),
    [
        ({"moves_farther": 0.52}, "the groups do not differ", "move farther"),
        ({"moves_farther": 0.65}, "differ little", "do not differ"),
        ({"moves_farther": 0.9}, "global features do move farther", "sees the whole"),
        ({"moves_farther": float("nan")}, "too few features", "nan"),
        ({"moves_farther": 0.9}, "In 90 % of those global pairs it stayed near", "nan"),
        ({"two_modes": False}, "a convention, not a border", "lies between"),
        ({"two_modes": True}, "γ lies between them", "convention"),
        ({"half_spearman": float("nan")}, "Too few pairs", "nan"),
    ],
)
def test_words_say_no_more_than_the_figures(
    changed: dict[str, object], said: str, unsaid: str
) -> None:
    told = " ".join(look_notes(figures(**changed)))
    assert said in told
    assert unsaid not in told


def test_too_few_photographs_and_other_mistakes_are_one_line(vitscope: CommandLine) -> None:
    write_scenes(vitscope.folder / "three", 3)
    (vitscope.folder / "empty").mkdir()
    write_scenes(vitscope.folder / "bad", 5)
    for name in ("IMG_1.png", "IMG_2.png"):
        (vitscope.folder / "bad" / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    for arguments, said in (
        (["nowhere"], "does not exist"),
        (["empty"], "holds no images"),
        (["three"], "three has 3 photographs to look at; a feature gets a score from 4"),
        (["bad"], "bad has 3 photographs to look at (2 files left out: "),
        (["three/IMG_0.png"], "is a file; give the folder"),
        (["bad", "--out", "bad/run"], "would lie among the photographs"),
        (["bad", "--sae", "gone"], "gone"),
    ):
        called = vitscope("look", *arguments, *MODEL)
        assert called.code == 2, (arguments, called.err)
        assert said in " ".join(called.err.split())
        assert "Traceback" not in called.err


def test_a_model_without_an_sae_of_ours_says_so(vitscope: CommandLine) -> None:
    write_scenes(vitscope.folder / "some", 5)
    called = vitscope("look", "some", "--model", "dinov2-b", "--no-open")
    assert called.code == 2
    assert "no SAE for 'dinov2-b' comes with the package" in " ".join(called.err.split())


def test_without_network_the_demo_is_offered_before_anything_is_read(
    vitscope: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(name: str) -> Path:
        raise BackboneError(f"the weights of {name} could not be fetched (no network)")

    monkeypatch.setattr(looking, "is_fetched", lambda name: False)
    monkeypatch.setattr(looking, "fetch", unreachable)
    write_scenes(vitscope.folder / "some", 5)
    sae = str(shipped_sae("scenes-vit"))
    called = vitscope("look", "some", "--model", "focus-s", "--sae", sae, "--no-open")
    assert called.code == 2
    assert "`vitscope demo` shows the whole job" in " ".join(called.err.split())
    assert not (vitscope.folder / "runs").exists()


def test_the_first_part_leaves_a_page(
    vitscope: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "FIRST_FROM", 12)
    monkeypatch.setattr(looking, "FIRST_PHOTOGRAPHS", 8)
    monkeypatch.setattr(looking, "FIRST_FEATURES", 400)
    assert FIRST_FROM > 12
    write_scenes(vitscope.folder / "a <b> & c", 13)
    ended = vitscope("look", "a <b> & c", *MODEL)
    assert ended.code == 0, ended.err
    assert "a first look at 8 photographs" in ended.err
    page = (vitscope.folder / "runs" / "a--b----c" / "first" / "first-look.html").read_text()
    assert "8 of 13 photographs" in page and "<svg" in page
    assert "a &lt;b&gt; &amp; c: a first look" in page and "<b>" not in page


def test_the_plan_takes_at_most_so_many(tmp_path: Path) -> None:
    write_scenes(tmp_path / "many", 9)
    plan = plan_look(tmp_path / "many", "scenes-vit", out=tmp_path / "run", most=4)
    assert plan.n_files == 4


def test_the_explorer_is_served_at_the_end(holiday: Path, looked: Path) -> None:
    command = [sys.executable, "-m", "vitscope", "look", str(holiday), "--model", "scenes-vit"]
    command += ["--out", str(looked), "--port", "0", "--no-browser"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "COLUMNS": "200"},
    ) as it:  # fmt: skip
        try:
            assert it.stdout is not None
            lines = iter(it.stdout.readline, "")
            address = next(filter(None, (re.search(r"http://[\d.]+:\d+/", line) for line in lines)))
            assert b"<title>" in urlopen(f"{address[0]}a/", timeout=60).read()
            while json.load(urlopen(f"{address[0]}a/state", timeout=60))["state"] == "loading":
                time.sleep(0.2)
            it.send_signal(signal.SIGINT)
            it.communicate(timeout=60)
        finally:
            it.kill()
    assert it.returncode == 0
