"""The table of stability: from a run's own pairs, and against other runs."""

from pathlib import Path

import numpy as np
import pytest
from tests.stages.small_study import small_study

from vitscope.errors import ArtifactError
from vitscope.pipeline import run_study
from vitscope.run import Run
from vitscope.store.run_directory import RunDirectory
from vitscope.store.tables import read_table


def test_a_run_compares_its_own_choices(finished: RunDirectory) -> None:
    rows = Run(finished.root).stability.rows
    assert [row.change.split()[0] for row in rows] == ["2", "1", "exemplars", "a", "a", "divided"]
    scored = int(np.isfinite(read_table(finished.features)["cds"]).sum())
    assert max(row.n for row in rows) == scored


def test_another_shift_and_another_sae_are_compared_by_feature(
    copied: RunDirectory, pictures: Path, tmp_path: Path
) -> None:
    # the same SAE at another shift; an SAE of another seed; a copy of the run itself
    run_study(
        small_study(pictures, scope={"shift": 2}, sae={"path": copied.sae}), tmp_path / "shifted"
    )
    run_study(small_study(pictures, seed=4), tmp_path / "reseeded")
    against = [tmp_path / "shifted", tmp_path / "reseeded", copied.root]
    run_study(small_study(pictures, stability={"against": against}), copied.root)
    shifted, reseeded, itself = Run(copied.root).stability.rows[-3:]
    assert shifted.change == "shifted: shift 1 → 2"
    assert shifted.spearman < 1
    assert reseeded.change.startswith("reseeded: seed 3 → 4 (another SAE: ")
    assert 0 < reseeded.n < shifted.n
    assert itself.change == "run: the same settings"
    assert (itself.spearman, itself.kappa, itself.mean_gap) == (1.0, 1.0, 0.0)


def test_a_folder_without_scores_is_refused_by_name(copied: RunDirectory, pictures: Path) -> None:
    study = small_study(pictures, stability={"against": [pictures]})
    with pytest.raises(ArtifactError, match=r"pictures has no features.parquet; give the dir"):
        run_study(study, copied.root)
