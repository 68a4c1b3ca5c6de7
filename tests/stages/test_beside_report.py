"""Other runs in a report: shown as they stand, and only where they have finished."""

from pathlib import Path

import pytest
from tests.stages.small_study import small_study

from vitscope.errors import ArtifactError
from vitscope.pipeline import run_study
from vitscope.store.run_directory import RunDirectory


def test_the_report_shows_both_runs_and_follows_the_other(
    copied: RunDirectory, pictures: Path, tmp_path: Path
) -> None:
    other = RunDirectory(tmp_path / "other")
    changed = {"name": "<other & run>", "scope": {"shift": 2}, "sae": {"path": copied.sae}}
    run_study(small_study(pictures, **changed), other.root)
    study = small_study(pictures, beside={"runs": [other.root]})
    outcomes = run_study(study, copied.root)
    assert [name for name, outcome in outcomes.items() if not outcome.skipped] == ["report"]
    page = copied.report.read_text(encoding="utf-8")
    assert "Beside other runs" in page and "cds-runs-title" in page
    assert "&lt;other &amp; run&gt;" in page and "<other & run>" not in page
    assert all(outcome.skipped for outcome in run_study(study, copied.root).values())
    run_study(small_study(pictures, **changed | {"scope": {"shift": 2, "gamma": 0.3}}), other.root)
    assert not run_study(study, copied.root)["report"].skipped


def test_an_unfinished_run_is_refused(copied: RunDirectory, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"beside\.runs: .*pictures is no run directory"):
        run_study(small_study(pictures, beside={"runs": [pictures]}), copied.root)
    other = RunDirectory(tmp_path / "other")
    run_study(small_study(pictures), other.root, only=["images"])
    with pytest.raises(ArtifactError, match=r"beside\.runs: stage 'outliers' has not finished"):
        run_study(small_study(pictures, beside={"runs": [other.root]}), copied.root)
