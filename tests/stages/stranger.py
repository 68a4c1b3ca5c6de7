"""A run that came from elsewhere: its study names a file of its own folder as the backbone."""

import tomllib
from pathlib import Path

import tomli_w

from vitscope.store.run_directory import RunDirectory

CODE = """from pathlib import Path

Path(__file__).with_name("ran").touch()


def build(settings):
    raise ValueError("asked")
"""


def hostile(run: RunDirectory) -> Path:
    """Make a run hostile; return the mark that its code leaves when it is executed."""
    study = tomllib.loads(run.study.read_text())
    study["backbone"]["name"] = "stranger.py:build"
    run.study.write_text(tomli_w.dumps(study))
    (run.root / "stranger.py").write_text(CODE)
    return run.root / "ran"
