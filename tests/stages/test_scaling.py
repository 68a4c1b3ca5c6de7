"""Probes over model sizes: two tiny random backbones, from a study file to the figure."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tests.stages.two_sizes import n_parameters

from vitscope.cli import main as command
from vitscope.store.tables import read_table

STUDY = """
name = "family"
[images]
train = "scenes:12?seed=1&side=88"
workers = 1
[backbone]
batch_size = 6
[activations]
tokens_per_image = 0
[sae]
expansion = 2
k = 4
batch_size = 128
learning_rate = 1e-2
steps = 20
[scope]
top_images = 2
null_draws = 0
cross_null = false
gamma = 0.3
min_pairs = 1
[outliers]
images = 4
[awcds]
images = 6
bins = 5
[probes]
epochs = 2
trials = 2
seeds = 2
n_controls = 2
[probes.classification]
train = "scenes:24?seed=3&side=88"
validation = "scenes:20?seed=4&side=88"
batch_size = 12
"""
MODELS = "two_sizes.py:large,two_sizes.py:small"


def called(*arguments: str, verb: str = "scaling") -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["vitscope", verb, *arguments])
        try:
            command.main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study run with both models, the figure drawn; not to be changed."""
    folder = tmp_path_factory.mktemp("scaling")
    shutil.copy(Path(__file__).with_name("two_sizes.py"), folder)
    (folder / "study.toml").write_text(STUDY)
    out = folder / "out"
    assert called(str(folder / "study.toml"), "--models", MODELS, "--out", str(out)) == 0
    return folder


def table(folder: Path) -> Any:
    return json.loads((folder / "out" / "scaling.json").read_text())


def run_of(folder: Path, name: str) -> Path:
    return folder / "out" / f"family-two_sizes.py-{name}"


def test_models_stand_by_size_with_what_their_heads_came_to(folder: Path) -> None:
    found = table(folder)
    sizes = {model["name"]: model["n_parameters"] for model in found["models"]}
    assert list(sizes.items()) == [
        ("two_sizes.py:small", n_parameters(16)),
        ("two_sizes.py:large", n_parameters(32)),
    ]
    for model, name in zip(found["models"], ("small", "large"), strict=True):
        heads = read_table(run_of(folder, name) / "probes.parquet")

        def best(variant: str, heads: Any = heads) -> np.ndarray:
            mine = (heads["variant"] == variant) & heads["is_best"]
            return heads["value"][mine][np.argsort(heads["seed"][mine])]

        for kind, one in model["tokens"].items():
            if one["why_none"]:
                assert one["value"]["mean"] is None
                continue
            if kind.startswith("random"):
                drawn = sorted(v for v in set(heads["variant"]) if v.startswith(f"{kind}-"))
                values = np.asarray([best(variant).mean() for variant in drawn])
                changes = np.asarray([(best(v) - best("original")).mean() for v in drawn])
            else:
                values = best("original" if kind == "original" else f"{kind}-removed")
                changes = values - best("original")
            for part, numbers in (("value", values), ("change", changes)):
                low, high = one[part]["low"], one[part]["high"]
                assert one[part]["mean"] == pytest.approx(numbers.mean())
                if len(numbers) > 1:
                    half = stats.t.ppf(0.975, len(numbers) - 1) * stats.sem(numbers)
                    assert (low, high) == pytest.approx(
                        (numbers.mean() - half, numbers.mean() + half)
                    )
        assert {"original", "high", "low"} <= model["tokens"].keys()


def test_the_figure_is_there_in_three_forms_and_finished_runs_give_the_same(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(run_of(folder, name)) for name in ("small", "large")]
    assert called(*runs, "--out", str(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert "two_sizes.py:small" in shown and "random, matched to high" in shown
    for kind, start in (("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")):
        drawn = [path / f"scaling.{kind}" for path in (folder / "out", tmp_path)]
        assert drawn[0].read_bytes().startswith(start)
        assert drawn[0].read_bytes() == drawn[1].read_bytes()
    assert json.loads((tmp_path / "scaling.json").read_text()) == table(folder)


def test_a_second_call_of_the_study_runs_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("stages/*.json")}
    out = str(folder / "out")
    assert called(str(folder / "study.toml"), "--models", MODELS, "--out", out, "--json") == 0
    assert json.loads(capsys.readouterr().out) == table(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("stages/*.json")} == before


def test_what_cannot_be_compared_is_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, large = (str(run_of(folder, name)) for name in ("small", "large"))
    other = Path(shutil.copytree(large, tmp_path / "other"))
    stamp = json.loads((other / "stages" / "probe.json").read_text())
    stamp["inputs"]["classification, validation"] = "20 others"
    (other / "stages" / "probe.json").write_text(json.dumps(stamp))
    bare = tmp_path / "bare.toml"
    bare.write_text('[images]\ntrain = "scenes:4?seed=1&side=88"\n')
    layered = tmp_path / "layered.toml"
    layered.write_text(STUDY.replace("[backbone]", "[backbone]\nlayer = 1"))
    study = str(folder / "study.toml")
    for arguments, says in (
        ([small], "scaling needs two different runs or more"),
        ([small, small], "scaling needs two different runs or more"),
        ([small, str(other)], "have other validation images for classification"),
        ([small, large, "--task", "depth"], "has no finished depth probes"),
        ([small, large, "--task", "colour"], "no task 'colour'; there are classification"),
        ([small, large, "--models", "a,b"], "--models takes one study file"),
        ([study, "--models", "x/a,y/a"], "a model is named twice"),
        ([str(bare), "--models", "a,b"], "set probes.classification.train in it"),
        ([str(layered), "--models", "a,b"], "backbone.layer = 1 fits one backbone, not several"),
        ([str(tmp_path / "nowhere.toml"), small], "nowhere.toml does not exist"),
    ):
        assert called(*arguments, "--out", str(tmp_path / "out")) == 2
        error = capsys.readouterr().err
        assert says in error.splitlines()[-1] and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_runs_that_differ_otherwise_are_compared_with_a_word(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(run_of(folder, "large"), tmp_path / "other"))
    stamp = json.loads((other / "stages" / "probe.json").read_text())
    stamp["settings"]["epochs"] = 5
    stamp["settings"]["classification"]["norm"] = "batch"
    (other / "stages" / "probe.json").write_text(json.dumps(stamp))
    assert called(str(run_of(folder, "small")), str(other), "--out", str(tmp_path / "out")) == 0
    assert "the runs differ in classification.norm, epochs" in capsys.readouterr().out
    assert not any("differ" in note for note in table(folder)["notes"])


def test_a_plan_is_printed_and_nothing_is_run(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    options = (str(tmp_path / "study.toml"), "--plan", "--out", str(tmp_path / "out"))
    assert called(*options, verb="probe") == 0
    shown = capsys.readouterr().out
    assert "kB" in shown and "are free" in shown
    assert called(*options, "--json", verb="probe") == 0
    assert json.loads(capsys.readouterr().out)["tasks"][0]["n_train"] == 24
    assert not (tmp_path / "out").exists()
