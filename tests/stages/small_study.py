"""A study small enough to run whole in seconds: 40 pictures, the planted backbone, a tiny SAE."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from vitscope.figures import files
from vitscope.images.generated import write_generated_images
from vitscope.pipeline import run_study
from vitscope.store.run_directory import RunDirectory
from vitscope.study import Study

N_IMAGES = 40

SETTINGS: dict[str, dict[str, Any]] = {
    "images": {"workers": 1},
    "activations": {"tokens_per_image": 0},
    "sae": {
        "expansion": 1, "k": 3, "batch_size": 512, "learning_rate": 1e-2, "steps": 60,
        "checkpoint_every": 10,
    },
    "scope": {"top_images": 4, "null_draws": 1},
    "outliers": {"images": 12},
    "awcds": {"images": 20, "bins": 10},
}  # fmt: skip


def small_study(pictures: Path, /, **changes: Any) -> Study:
    """The study; ``scope={"gamma": 0.3}``, ``seed=4`` and the like change a setting."""
    values: dict[str, Any] = {"name": "small", "seed": 3, **SETTINGS}
    values["images"] = {"train": pictures, **SETTINGS["images"]}
    for key, value in changes.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return Study.parse(values, source="small_study")


_made: dict[Path, tuple[Path, RunDirectory]] = {}


def _make(factory: pytest.TempPathFactory) -> tuple[Path, RunDirectory]:
    # kept, because every module that imports a fixture would otherwise make its own
    base = factory.getbasetemp()
    if base not in _made:
        folder = factory.mktemp("small")
        write_generated_images(folder / "pictures", N_IMAGES, seed=0, side=128)
        run_study(small_study(folder / "pictures"), folder / "run")
        _made[base] = folder / "pictures", RunDirectory(folder / "run")
    return _made[base]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures; not to be changed."""
    return _make(tmp_path_factory)[0]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The whole study on ``pictures``, run once; not to be changed."""
    return _make(tmp_path_factory)[1]


@pytest.fixture
def copied(finished: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of the finished run, to be worked on."""
    return RunDirectory(Path(shutil.copytree(finished.root, tmp_path / "run")))


@pytest.fixture
def svg_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are written in the cheapest of their formats: for tests of what is drawn."""
    monkeypatch.setattr(files, "FIGURE_FORMATS", ("svg",))
