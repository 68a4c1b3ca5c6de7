"""The command line as a user calls it, in this process: what it prints, and its exit code."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from vitscope.cli import main as command
from vitscope.images.generated import write_generated_images

QUICK = """
[images]
train = "pictures"
workers = 1
[activations]
tokens_per_image = 0
[sae]
expansion = 1
k = 3
batch_size = 512
learning_rate = 1e-2
steps = 30
[scope]
top_images = 3
null_draws = 0
[outliers]
images = 6
[awcds]
images = 10
bins = 5
"""
"""The whole job on few pictures, in seconds."""


@dataclass(frozen=True)
class Called:
    """Exit code, standard output and standard error."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class CommandLine:
    """``call("run", "study.toml")`` in ``folder``, which is the working directory."""

    folder: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> Called:
        self.capture.readouterr()
        code = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["vitscope", *arguments])
            try:
                command.main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
        streams = self.capture.readouterr()
        return Called(code, streams.out, streams.err)

    def write(self, text: str, name: str = "study.toml") -> str:
        """Write a study and return its name."""
        (self.folder / name).write_text(text, encoding="utf-8")
        return name


@pytest.fixture
def vitscope(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> CommandLine:
    """The command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return CommandLine(tmp_path, capsys)


def write_pictures(folder: Path, n: int) -> list[Path]:
    return write_generated_images(folder, n, seed=0, side=128)
