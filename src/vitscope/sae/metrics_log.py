"""The log of a training: one JSON object a line, the same whether or not it was interrupted."""

import json
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from vitscope.artifacts.atomic import write_text
from vitscope.errors import ArtifactError
from vitscope.sae.state import StepFigures


class MetricsLog:
    """Appends a line per call; on entry, drops the lines after the step that is resumed from.

    Wall times are left out: they would differ between runs that are otherwise equal.
    """

    def __init__(self, path: Path | None, *, resumed_from: int) -> None:
        self._path = path
        self._resumed_from = resumed_from
        self._handle: TextIO | None = None

    def __enter__(self) -> Self:
        if self._path is not None:
            write_text(self._path, "".join(_lines_up_to(self._path, self._resumed_from)))
            try:
                self._handle = self._path.open("a", encoding="utf-8")
            except OSError as error:
                raise ArtifactError(f"cannot write {self._path}: {error.strerror}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._handle is not None:
            self._handle.close()

    def write(self, figures: StepFigures, learning_rate: float) -> None:
        """Append one line and hand it to the system."""
        if self._handle is not None:
            line = {**asdict(figures), "learning_rate": learning_rate}
            self._handle.write(json.dumps(line) + "\n")
            self._handle.flush()


def _lines_up_to(path: Path, step: int) -> list[str]:
    if not path.exists():
        return []
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if int(json.loads(line)["step"]) > step:
                break
        except (ValueError, KeyError, TypeError):
            break  # the line that a kill cut short, always the last
        kept.append(line)
    return kept
