"""The stage that CONTRIBUTING.md shows runs as it stands there."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from vitscope import pipeline
from vitscope.cli import main
from vitscope.run import Run
from vitscope.store.run_directory import RunDirectory

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
MODULE = "everywhere_of_contributing"


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the page shows, in the pipeline's list."""
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    path = tmp_path / f"{MODULE}.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, MODULE, module)
    spec.loader.exec_module(module)
    monkeypatch.syspath_prepend(tmp_path)
    stages = dict(pipeline.STAGES)
    report = stages.pop("report")
    for name, home in {"everywhere": MODULE, "report": report}.items():
        stages[name] = home
    monkeypatch.setattr(pipeline, "STAGES", stages)
    return path


def test_the_stage_shown_runs_is_skipped_and_read(
    shown: Path, copied: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pipeline.purposes()["everywhere"] == "features that fire on most tokens"
    study = Run(copied.root).study
    first = pipeline.run_study(study, copied.root, only=["everywhere"])["everywhere"]
    again = pipeline.run_study(study, copied.root, only=["everywhere"])["everywhere"]
    assert (first.skipped, again.skipped) == (False, True)
    density = Run(copied.root).features["density"]
    found = Run(copied.root).result(type(first.stage))
    assert np.array_equal(found.features["feature"], np.flatnonzero(density > 0.5))
    ((label, text),) = first.stage.headline(first.result)
    assert label == "everywhere" and text.startswith(f"{(density > 0.5).sum()} features")
    assert (copied.root / "tables/everywhere.parquet").is_file()
    table = copied.root / "tables/everywhere.parquet"
    table.write_bytes(b"")
    assert not pipeline.run_study(study, copied.root, only=["everywhere"])["everywhere"].skipped


def test_its_line_of_the_pipeline_is_as_the_page_says() -> None:
    assert '"everywhere": "vitscope.stages.everywhere"' in PAGE.read_text()
    assert pipeline.STAGES["awcds"] == "vitscope.stages.awcds"
    assert main.app.registered_commands
