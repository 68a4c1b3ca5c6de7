"""Verbs that look at a finished run execute nothing that it names."""

from pathlib import Path

import pytest
from tests.stages.stranger import hostile

from vitscope.compare import compare_saes
from vitscope.errors import ArtifactError
from vitscope.figures.catalogue import write_figures
from vitscope.figures.scaling import read_scaling, scaling_plan
from vitscope.publish import export_sae
from vitscope.run import Run
from vitscope.store.run_directory import RunDirectory

PICTURES = {"gallery-low", "gallery-high", "norm-maps", "awcds-maps"}
"""Figures of photographs; the run has kept what they show."""


@pytest.mark.usefixtures("svg_only")
def test_figures_are_drawn_of_what_the_run_has_kept(copied: RunDirectory) -> None:
    mark = hostile(copied)
    reasons = {one.name: one.reason for one in write_figures([Run(copied.root)])}
    drawn = {name for name, reason in reasons.items() if not reason}
    assert drawn >= {"cds", "awcds", "instability", *PICTURES}
    assert not mark.exists()


@pytest.mark.usefixtures("svg_only")
def test_beside_other_runs_comparing_exporting_and_scaling_take_no_backbone(
    copied: RunDirectory, finished: RunDirectory, tmp_path: Path
) -> None:
    mark = hostile(copied)
    outcomes = write_figures([Run(finished.root), Run(copied.root)], tmp_path / "figures")
    assert {one.name for one in outcomes if one.files} >= {"cds-runs", "awcds-runs", *PICTURES}
    assert compare_saes([finished.root, copied.root]).recovered_in_all == 1
    assert export_sae(copied.root, tmp_path / "sae", to="hub", data="", license="")
    runs = [finished.root, copied.root]
    plan = scaling_plan(runs, None, "classification", tmp_path / "scaling")
    assert not plan.to_run
    with pytest.raises(ArtifactError, match="no finished classification probes"):
        read_scaling([Run(folder) for folder in plan.runs], "classification")
    assert not mark.exists()
