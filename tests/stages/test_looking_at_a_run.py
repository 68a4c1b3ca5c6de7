"""Verbs that look at a finished run execute nothing that it names."""

from pathlib import Path

import pytest
from tests.stages.stranger import hostile

from vitscope.errors import ArtifactError
from vitscope.stages.compare import compare_saes
from vitscope.stages.figures import write_figures
from vitscope.stages.publish import export_sae
from vitscope.stages.scaling import read_scaling
from vitscope.stages.scaling_plan import scaling_plan
from vitscope.store.run_directory import RunDirectory

PICTURES = ("gallery-low", "gallery-high", "norm-maps", "awcds-maps")
"""Figures that take the backbone."""


def test_figures_execute_it_only_on_request(copied: RunDirectory) -> None:
    mark = hostile(copied)
    reasons = {one.name: one.reason for one in write_figures([copied.root])}
    for name in PICTURES:
        said = reasons[name]
        assert f"the backbone of {copied.root} is Python code, " in said and "\n" not in said
        assert said.endswith("stranger.py:build, and looking at a run does not execute it; if you "
                             "trust that code, give --run-code")  # fmt: skip
    assert reasons["cds"] == reasons["awcds"] == reasons["instability"] == ""
    assert not mark.exists()
    reasons = {one.name: one.reason for one in write_figures([copied.root], run_code=True)}
    assert all("asked" in reasons[name] for name in PICTURES)
    assert mark.exists()


def test_a_module_s_function_is_not_called_either(
    copied: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = hostile(copied)
    monkeypatch.syspath_prepend(copied.root)
    text = copied.study.read_text(encoding="utf-8")
    copied.study.write_text(text.replace("stranger.py:build", "stranger:build"), encoding="utf-8")
    reasons = {one.name: one.reason for one in write_figures([copied.root])}
    assert all("--run-code" in reasons[name] for name in PICTURES) and not mark.exists()


def test_beside_other_runs_comparing_exporting_and_scaling_take_no_backbone(
    copied: RunDirectory, finished: RunDirectory, tmp_path: Path
) -> None:
    mark = hostile(copied)
    outcomes = write_figures([finished.root, copied.root], tmp_path / "figures")
    assert {one.name for one in outcomes if one.files} >= {"cds-runs", "awcds-runs", *PICTURES}
    assert compare_saes([finished.root, copied.root]).recovered_in_all == 1
    assert export_sae(copied.root, tmp_path / "sae", to="hub", data="", license="")
    runs = [finished.root, copied.root]
    plan = scaling_plan(runs, None, "classification", tmp_path / "scaling")
    assert not plan.to_run
    with pytest.raises(ArtifactError, match="no finished classification probes"):
        read_scaling(plan.runs, "classification")
    assert not mark.exists()
