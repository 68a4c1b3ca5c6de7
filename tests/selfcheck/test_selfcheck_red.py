"""The selfcheck can fail: broken on purpose, the pipeline is red, and the right check says so."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pytest import MonkeyPatch
from tests.selfcheck.broken_pipeline import HonestRun, by_name
from tests.selfcheck.mistakes import MISTAKES, Mistake

from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.selfcheck.checks import OracleRun, check_oracle, failures
from vitscope.selfcheck.selfcheck import run_selfcheck


def test_an_honest_pipeline_passes(honest: HonestRun) -> None:
    assert [check.name for check in by_name(honest.report).values() if check.passed is False] == []
    assert honest.report.passed
    bounded = [check for check in by_name(honest.report).values() if check.passed is not None]
    assert len(bounded) > 20
    assert all(type(check.passed) is bool and np.isfinite(check.measured) for check in bounded)


def test_an_unbroken_repetition_is_green(honest: HonestRun, tmp_path: Path) -> None:
    # otherwise the tests below might be red for the copying's sake
    again = honest.again(tmp_path / "again", ["partition"])
    assert by_name(again) == by_name(honest.report)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_selfcheck_passes() -> None:
    report = run_selfcheck()
    assert list(report.checks) == ["oracle", "trained", "stress"]
    assert {run: failures(checks) for run, checks in report.checks.items()} == {
        "oracle": [], "trained": [], "stress": [],
    }  # fmt: skip
    assert all(check.passed is None for check in report.checks["stress"])


@pytest.mark.parametrize("wrong", MISTAKES, ids=lambda wrong: wrong.name)
def test_a_broken_pipeline_is_red(
    wrong: Mistake, honest: HonestRun, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    wrong.make(monkeypatch)
    report = honest.again(tmp_path / "broken", wrong.redo)
    red = {name for name, check in by_name(report).items() if check.passed is False}
    assert wrong.red <= red
    assert not report.passed


def test_scores_and_figures_that_are_not_numbers_are_red(
    honest: HonestRun, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    found = OracleRun.read(honest.root / "oracle", PlantedBackbone())
    nowhere = np.full(len(found.features["cds"]), np.nan)
    checks = {
        c.name: c for c in check_oracle(replace(found, features={**found.features, "cds": nowhere}))
    }
    for name in (
        "mean CDS, local", "mean CDS, global", "mean CDS, border", "AUROC, local against global",
        "relocation null, global", "awCDS, outlier tokens", "awCDS, other tokens",
    ):  # fmt: skip
        assert np.isnan(checks[name].measured) or name.startswith("awCDS"), name
        assert checks[name].passed is False, name
