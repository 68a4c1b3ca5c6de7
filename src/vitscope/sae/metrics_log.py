"""The log of a training: one JSON object a line, the same whether or not it was interrupted."""

import json
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from vitscope.errors import ArtifactError
from vitscope.sae.settings import SaeSettings
from vitscope.sae.state import StepFigures
from vitscope.sae.trackers import Tracker, open_trackers
from vitscope.sae.watch import HeldOutFigures
from vitscope.store.atomic import write_text


class MetricsLog:
    """Appends a line per call; on entry, drops the lines after the step that is resumed from.

    Wall times are left out: they would differ between runs that are otherwise equal. Trackers get
    the same figures, on entry nothing is taken back from them.
    """

    def __init__(self, path: Path | None, settings: SaeSettings, *, resumed_from: int) -> None:
        self._path = path
        self._settings = settings
        self._resumed_from = resumed_from
        self._handle: TextIO | None = None
        self._trackers: list[Tracker] = []

    def __enter__(self) -> Self:
        if self._path is not None:
            write_text(self._path, "".join(_lines_up_to(self._path, self._resumed_from)))
            try:
                self._handle = self._path.open("a", encoding="utf-8")
            except OSError as error:
                raise ArtifactError(f"cannot write {self._path}: {error.strerror}") from error
            self._trackers = open_trackers(
                self._settings.track,
                self._path.parent,
                settings=self._settings.model_dump(mode="json"),
                resumed_from=self._resumed_from,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for tracker in self._trackers:
            tracker.close()
        if self._handle is not None:
            self._handle.close()

    def write(
        self,
        figures: StepFigures,
        learning_rate: float,
        held_out: HeldOutFigures | None = None,
        threshold: float | None = None,
    ) -> None:
        """Append one line and hand it to the system.

        Args:
            figures: of the batch.
            learning_rate: of the step.
            held_out: where this step was looked at.
            threshold: the running θ of that look, on normalised inputs, if the method has one.
        """
        if self._handle is not None:
            line: dict[str, float] = {**asdict(figures), "learning_rate": learning_rate}
            if held_out is not None:
                line |= {f"held_out_{name}": value for name, value in asdict(held_out).items()}
                line |= {} if threshold is None else {"running_threshold": threshold}
            self._handle.write(json.dumps(line) + "\n")
            self._handle.flush()
            step = int(line.pop("step"))
            for tracker in self._trackers:
                tracker.write(step, line)


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
