"""A run that came from elsewhere: looking at it executes nothing that it names."""

import tomllib
from pathlib import Path

import pytest
import tomli_w
from explored_run import copied_run, explored

from vitscope.artifacts.run_directory import RunDirectory
from vitscope.errors import BackboneError
from vitscope.saved_gamma import save_gamma
from vitscope.stages.explore import load_models, read_run

__all__ = ["copied_run", "explored"]

CODE = """from pathlib import Path

Path(__file__).with_name("ran").touch()


def build(settings):
    raise ValueError("asked")
"""


def hostile(run: RunDirectory) -> Path:
    """The run, whose study now names a file of its own folder as the backbone; the mark it sets."""
    study = tomllib.loads(run.study.read_text())
    study["backbone"]["name"] = "stranger.py:build"
    run.study.write_text(tomli_w.dumps(study))
    (run.root / "stranger.py").write_text(CODE)
    return run.root / "ran"


def test_code_that_a_run_names_is_executed_only_on_request(copied_run: RunDirectory) -> None:
    mark = hostile(copied_run)
    assert read_run(copied_run.root).name
    with pytest.raises(BackboneError, match=r"is Python code, .*stranger\.py:build, .* --run-code"):
        load_models(copied_run.root)
    with pytest.raises(BackboneError, match="--run-code"):
        save_gamma(copied_run.root, 0.5)
    assert not mark.exists()
    with pytest.raises(BackboneError, match="asked"):
        load_models(copied_run.root, run_code=True).backbone  # noqa: B018
    assert mark.exists()
