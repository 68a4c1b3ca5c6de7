"""A study with all three probes and zero-shot on a handful of scenes, and its run up to them."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from vitscope.embedded.files import shipped_sae
from vitscope.pipeline import STAGES, run_study
from vitscope.stages import passes as chunked
from vitscope.store.run_directory import RunDirectory
from vitscope.study import Study

BEFORE = [name for name in STAGES if name not in ("extract", "report")][:-2]
"""What must have run before the probes, and all else but the report."""


def scenes(n: int, seed: int) -> Path:
    return Path(f"scenes:{n}?seed={seed}&side=88")


TASKS: dict[str, dict[str, Any]] = {
    "classification": {"train": scenes(24, 3), "validation": scenes(10, 4), "batch_size": 16},
    "segmentation": {
        "train": scenes(12, 3), "validation": scenes(6, 4), "batch_size": 6, "pixels": 20,
    },
    "depth": {
        "train": scenes(10, 3), "validation": scenes(6, 4), "batch_size": 5, "pixels": 20,
        "bins": 8, "depth_range": (0.001, 41.0),
    },
    "zeroshot": {"images": scenes(20, 4)},
}  # fmt: skip


def probe_study(**changes: Any) -> Study:
    """The study; ``depth=None`` leaves a task out, other keywords are settings of probes."""
    probes: dict[str, Any] = {"epochs": 3, "trials": 2, "n_controls": 1, **TASKS, **changes}
    values = {
        "name": "probes",
        "images": {"train": scenes(24, 1), "workers": 1},
        "backbone": {"name": "scenes-vit", "batch_size": 8},
        "sae": {"path": shipped_sae("scenes-vit")},
        "scope": {"top_images": 2, "null_draws": 0, "cross_null": False},
        "outliers": {"images": 4},
        "awcds": {"images": 8, "bins": 5},
        "probes": {key: value for key, value in probes.items() if value is not None},
    }
    return Study.parse(values, source="probe_study")


_made: dict[Path, tuple[RunDirectory, RunDirectory]] = {}


def _make(factory: pytest.TempPathFactory) -> tuple[RunDirectory, RunDirectory]:
    base = factory.getbasetemp()
    if base not in _made:
        folder = factory.mktemp("probes")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(chunked, "CHUNK_IMAGES", 10)  # sums of several parts are merged
            run_study(probe_study(), folder / "before", only=BEFORE)
        shutil.copytree(folder / "before", folder / "run")
        run_study(probe_study(), folder / "run")
        _made[base] = RunDirectory(folder / "before"), RunDirectory(folder / "run")
    return _made[base]


@pytest.fixture(scope="session")
def before(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The run without probes, zero-shot and report; not to be changed."""
    return _make(tmp_path_factory)[0]


@pytest.fixture(scope="session")
def probed(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The whole run; not to be changed."""
    return _make(tmp_path_factory)[1]
