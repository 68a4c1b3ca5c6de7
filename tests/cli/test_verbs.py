"""The verbs: what they print, where they write, how they end."""

import dataclasses
import json
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli.command_line import QUICK, CommandLine, write_pictures

import vitscope as package
from vitscope import demo
from vitscope.backbones.zoo import ZOO
from vitscope.images.sources import ImageSettings
from vitscope.pipeline import STAGES, chosen_stages
from vitscope.selfcheck import selfcheck as runs
from vitscope.selfcheck.checks import at_least, reported, within
from vitscope.selfcheck.selfcheck import SelfcheckReport
from vitscope.study import Study

EVERY = [stage.name for stage in chosen_stages(Study(images=ImageSettings(train=Path("pictures"))))]
VERBS = [
    "run",
    "demo",
    "score",
    "selfcheck",
    "figures",
    "models",
    "export",
    "push",
    "compare",
    *STAGES,
]


def strict_json(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_help_names_every_verb(vitscope: CommandLine) -> None:
    ended = vitscope("--help")
    assert (ended.code, ended.err) == (0, "")
    for verb in VERBS:
        assert f" {verb} " in ended.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(vitscope: CommandLine, verb: str) -> None:
    ended = vitscope(verb, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert f"vitscope {verb}" in ended.out


def test_without_a_verb_help_is_shown(vitscope: CommandLine) -> None:
    ended = vitscope()
    assert ended.code == 2
    assert "Commands" in ended.out + ended.err


def test_help_does_not_wait_for_torch() -> None:
    check = (
        "import sys, vitscope.cli.main; sys.exit(any(m in sys.modules for m in ('torch', 'timm')))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_the_module_and_the_script_are_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vitscope", "run", "nowhere.toml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: nowhere.toml does not exist; give the path of a study file\n"


def test_models_lists_the_zoo(vitscope: CommandLine) -> None:
    ended = vitscope("models")
    assert (ended.code, ended.err) == (0, "")
    assert all(name in ended.out for name in ("planted", *ZOO))
    assert "not among the paper's twelve: dinov2-s, focus-s\n" in ended.out
    assert "focus-s: tuned for saliency; DINOv2's architecture, not Meta's weights\n" in ended.out


def test_fetching_what_comes_along_is_one_line(vitscope: CommandLine) -> None:
    ended = vitscope("fetch", "planted")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "error: 'planted' comes with vitscope; there is nothing to fetch\n"


def test_a_run_ends_with_its_numbers_and_the_report(vitscope: CommandLine) -> None:
    write_pictures(vitscope.folder / "pictures", 12)
    # a long path with what rich would take for markup: it is printed to be copied
    out = Path("a-rather-long-name-of-a-folder" * 3) / "[bold]run"
    ended = vitscope("run", vitscope.write(QUICK), "--out", str(out))
    assert ended.code == 0, ended.err
    assert [line.split()[1] for line in ended.err.splitlines()] == EVERY
    assert ended.out.splitlines()[-1] == f"report  {out}/report.html"
    assert (out / "report.html").is_file()
    for headline in ("FVU all / outlier", "γ", "τ", "D̄ outlier / other, query", "awCDS"):
        assert headline in ended.out
    again = vitscope("run", "study.toml", "--out", str(out))
    assert [line[0] for line in again.err.splitlines()] == ["·"] * len(EVERY)
    assert again.out == ended.out, "a run that is skipped says what the first one said"
    moved = out.rename("moved")
    assert vitscope("run", "study.toml", "--out", "moved").out.endswith(f"{moved}/report.html\n")


def test_json_is_all_there_is_on_standard_output(vitscope: CommandLine) -> None:
    write_pictures(vitscope.folder / "pictures", 12)
    study = vitscope.write(QUICK)
    ended = vitscope("run", study, "--json")
    assert ended.code == 0, ended.err
    found = strict_json(ended.out)
    assert found["run"] == str(vitscope.folder / "runs/study")
    assert list(found["stages"]) == EVERY
    assert found["stages"]["images"]["n_train"] == 12
    assert not any(stage["unchanged"] for stage in found["stages"].values())
    again = strict_json(vitscope("run", study, "--json").out)
    assert all(stage["unchanged"] for stage in again["stages"].values())


def test_stages_one_by_one(vitscope: CommandLine) -> None:
    write_pictures(vitscope.folder / "pictures", 12)
    study = vitscope.write('name = "one by one"\n' + QUICK)
    for verb in EVERY:
        ended = vitscope(verb, study, "--json")
        assert ended.code == 0, ended.err
        assert list(strict_json(ended.out)["stages"]) == [verb]
    assert (vitscope.folder / "runs/one-by-one/report.html").is_file()


def test_scoring_an_sae_that_is_brought_along(vitscope: CommandLine) -> None:
    write_pictures(vitscope.folder / "pictures", 12)
    assert vitscope("run", vitscope.write(QUICK), "--out", "first").code == 0
    ended = vitscope(
        "score", "--model", "planted", "--sae", "first/sae", "--images", "pictures", "--json"
    )
    assert ended.code == 0, ended.err
    found = strict_json(ended.out)
    assert found["run"] == str(vitscope.folder / "runs/planted-first-sae")
    assert "extract" not in found["stages"]
    assert 0 <= found["stages"]["partition"]["gamma"] <= 1
    told = next(line for line in ended.err.splitlines() if line.startswith("✓ train"))
    fvu = found["stages"]["train"]["given"]["fvu"]
    assert f"vitscope: FVU {fvu:.3g}, L0" in told and "on 1,000 tokens" in told


@pytest.mark.parametrize("name", ["..", ".", "/", "a/../../b", ".hidden", "con: a\\b"])
def test_no_name_of_a_study_leads_out_of_runs(vitscope: CommandLine, name: str) -> None:
    write_pictures(vitscope.folder / "pictures", 2)
    study = vitscope.write(f"name = '{name}'\n" + QUICK)
    found = strict_json(vitscope("images", study, "--json").out)
    assert Path(found["run"]).parent == vitscope.folder / "runs"
    assert not Path(found["run"]).name.startswith(".")


TINY = demo.DemoSize(
    images=20,
    live_images=16,
    live_steps=8,
    instability_images=4,
    probe_images=32,
    probe_validation=16,
    probe_seeds=1,
    probe_controls=1,
)


@pytest.mark.slow
def test_the_demo_runs_to_its_report(
    vitscope: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "FULL", TINY)
    ended = vitscope("demo")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-1] == "report  runs/demo/report.html"
    titles = ("an SAE trained on the spot", "an untrained copy", "the demonstration")
    assert [t for t in titles if t in ended.err] == list(titles)
    page = (vitscope.folder / "runs/demo/report.html").read_text(encoding="utf-8")
    assert demo.NOTE.split(",")[0] in page
    assert "untrained copy" in page and "SAE trained live" in page
    assert "What each kind of feature does" in page
    assert "classification, top1" in ended.out and "zero-shot, top1" in ended.out
    again = vitscope("demo")
    assert again.code == 0 and "✓" not in again.err, "everything stands"


@pytest.mark.slow
def test_the_quick_demo_has_its_control_and_no_training(
    vitscope: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = dataclasses.replace(TINY, live_images=0)
    monkeypatch.setattr(demo, "QUICK", quick)
    ended = vitscope("demo", "--quick", "--json")
    assert ended.code == 0, ended.err
    assert "extract" not in ended.err and "untrained copy" in ended.err
    stages = strict_json(ended.out)["stages"]
    assert stages["train"]["n_features"] == 32 * 128
    tasks = [task["task"] for task in stages["probe"]["tasks"]]
    assert tasks == ["classification"], "masks and depth take too long"
    assert stages["zeroshot"]["variants"][0]["top1"] > 0.5


@pytest.mark.slow
@pytest.mark.timeout(1200)  # minutes on an idle machine, more beside other tests
def test_the_demo_itself(vitscope: CommandLine) -> None:
    ended = vitscope("demo", "--json")
    assert ended.code == 0, ended.err
    stages = strict_json(ended.out)["stages"]
    groups = package.open_run(vitscope.folder / "runs/demo").partition
    assert groups.low.size > groups.high.size > 0
    (task,) = stages["probe"]["tasks"]
    top1 = {one["variant"]: one["mean"] for one in task["variants"]}
    assert top1["original"] > 0.8 > top1["low-removed"] + 0.2


RED = {"oracle": [within("mean CDS, local", 0.3, 0.0, 0.02), reported("other", float("nan"))]}
GREEN = {"oracle": [within("mean CDS, local", 0.0, 0.0, 0.02), at_least("AUROC", 1.0, 0.99)]}


@pytest.mark.parametrize(("checks", "code"), [(RED, 1), (GREEN, 0)])
def test_selfcheck_tells_by_its_exit_code(
    vitscope: CommandLine, monkeypatch: pytest.MonkeyPatch, checks: dict[str, Any], code: int
) -> None:
    asked: dict[str, Any] = {}

    def pretend(**options: Any) -> SelfcheckReport:
        asked.update(options)
        return SelfcheckReport(checks)

    monkeypatch.setattr(runs, "run_selfcheck", pretend)
    ended = vitscope("selfcheck", "--only", "oracle", "--only", "stress", "--seed", "5")
    assert ended.code == code
    assert asked["modes"] == ("oracle", "stress")
    assert asked["seed"] == 5
    assert "mean CDS, local" in ended.out
    assert ("a bound fails" if code else "every bound holds") in ended.out
    as_json = vitscope("selfcheck", "--json")
    assert as_json.code == code
    found = strict_json(as_json.out)
    assert found["passed"] is (code == 0)
    assert found["checks"]["oracle"][0]["passed"] is (code == 0)


def test_the_public_names_are_those_that_are_promised() -> None:
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'scoer'"):
        getattr(package, "scoer")  # noqa: B009


def test_no_folder_hides_a_public_name() -> None:
    """A subpackage that is imported becomes an attribute of the package, and would win."""
    source = Path(str(package.__file__)).parent
    modules = {module.name for module in pkgutil.iter_modules([str(source)])}
    assert "transport" in modules and not modules & set(package.__all__)
