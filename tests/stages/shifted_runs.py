"""Runs of stage «instability» at three shifts, on forty pictures and the planted backbone."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.stages.small_study import small_study

from vitscope.images.generated import write_generated_images
from vitscope.pipeline import run_study
from vitscope.store.run_directory import RunDirectory
from vitscope.study import Study

SHIFTS = (1, 3, 5)

STAGES = ["images", "outliers", "instability"]
"""No SAE is needed."""


def shifted_study(shifted_pictures: Path, **changes: Any) -> Study:
    return small_study(shifted_pictures, **{"instability": {"shifts": SHIFTS}, **changes})


def table_of(run: RunDirectory) -> Any:  # pandas ships no types for what is done here
    return pd.read_parquet(run.outliers)


def again(run: RunDirectory, study: Study) -> Any:
    """Run the stages that the study redoes and return the long table."""
    run_study(study, run.root, only=STAGES)
    return table_of(run)


@pytest.fixture(scope="module")
def shifted_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures; not to be changed."""
    folder = tmp_path_factory.mktemp("shifted_pictures")
    write_generated_images(folder, 40, seed=0, side=128)
    return folder


@pytest.fixture(scope="module")
def several(shifted_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run of three shifts; not to be changed."""
    run = RunDirectory(tmp_path_factory.mktemp("several"))
    again(run, shifted_study(shifted_pictures))
    return run


@pytest.fixture
def copied_shifts(several: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of it, to be worked on."""
    return RunDirectory(Path(shutil.copytree(several.root, tmp_path / "run")))
