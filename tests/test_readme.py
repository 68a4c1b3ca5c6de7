"""What the README shows is run here, or is a target of the Makefile that CI runs."""

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitscope.pipeline import STAGES
from vitscope.run import Run
from vitscope.study import Study

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "docs" / "index.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
VERBS = {
    "run",
    "demo",
    "selfcheck",
    "figures",
    "explore",
    "models",
    "fetch",
    "look",
    "export",
    "push",
    "compare",
    "scaling",
    "reproduce",
    *STAGES,
}


def blocks(page: Path, language: str) -> list[str]:
    return [
        body for name, body in BLOCK.findall(page.read_text(encoding="utf-8")) if name == language
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_study_shown_is_valid(page: Path) -> None:
    shown = blocks(page, "toml")
    assert shown
    for text in shown:
        Study.parse(tomllib.loads(text), source=page.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_shown_exists(page: Path) -> None:
    lines = [line for body in blocks(page, "") for line in body.splitlines() if line.strip()]
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert lines
    for line in lines:
        words = line.split("#")[0].split()
        if words[0] == "make":
            assert words[1] in targets, line
        else:
            assert words[0] == ".venv/bin/vitscope", line
            assert words[1] in VERBS | {"--help"}, line


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.toml")), ids=lambda f: f.name)
def test_every_study_that_comes_along_is_valid(file: Path) -> None:
    Study.parse(tomllib.loads(file.read_text(encoding="utf-8")), source=file.name)


def test_the_python_shown_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(ROOT / "README.md", "python")
    random = np.random.default_rng(0)
    names: dict[str, Any] = {"map_a": random.random((13, 13)), "map_b": random.random((13, 13))}
    code = code.replace("SceneSet(200,", "SceneSet(20,")  # the same calls, on fewer scenes
    exec(compile(code, "README.md", "exec"), names)
    run = names["run"]
    assert isinstance(run, Run)
    part = run.partition
    assert part.low.size + part.high.size + part.unscored.size == run.features.n_rows == 4096
    assert names["distance"] > 0
