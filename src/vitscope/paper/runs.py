"""The finished runs of a reproduction, found and read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vitscope.backbones.zoo import ZOO
from vitscope.embedded.files import REFERENCE_BACKBONES
from vitscope.errors import ArtifactError, ConfigError
from vitscope.paper.assumptions import Value, label
from vitscope.paper.targets import Target, chosen_targets
from vitscope.store.atomic import read_json
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stage import read_stamp
from vitscope.study import Study, load_study

MARK = "reproduction.json"
"""What tells a run of a reproduction from others: its model, readings and targets."""


@dataclass(frozen=True)
class FinishedRun:
    """A run that is there, perhaps with fewer stages than its study has.

    Attributes:
        model: the backbone.
        readings: otherwise than by default.
        targets: that it serves.
        study: as it was run.
        run: where everything lies.
    """

    model: str
    readings: Mapping[str, Value]
    targets: tuple[Target, ...]
    study: Study
    run: RunDirectory

    def has(self, stage: str) -> bool:
        """Whether a stage has finished."""
        return read_stamp(self.run, stage) is not None


def read_run(folder: Path) -> FinishedRun:
    """Read a run of a reproduction.

    Raises:
        ArtifactError: its mark is missing or damaged.
        ConfigError: its study cannot be read.
    """
    run = RunDirectory(folder)
    model, readings, targets = _read_mark(folder / MARK)
    return FinishedRun(model, readings, targets, load_study(run.study), run)


def find_runs(out: Path) -> tuple[FinishedRun, ...]:
    """Return the runs of a reproduction below ``out``: models as the zoo has them, then others."""
    found = [read_run(mark.parent) for mark in sorted(out.glob(f"*/{MARK}"))]
    places = {name: i for i, name in enumerate((*ZOO, *REFERENCE_BACKBONES))}
    return tuple(
        sorted(found, key=lambda r: (places.get(r.model, len(places)), r.model, label(r.readings)))
    )


def served_targets(folder: Path) -> tuple[Target, ...]:
    """Return the targets that earlier requests had of the run in ``folder``."""
    mark = folder / MARK
    return _read_mark(mark)[2] if mark.exists() else ()


def _read_mark(path: Path) -> tuple[str, Mapping[str, Value], tuple[Target, ...]]:
    """Return the model, the readings and the targets that a mark names."""
    match read_json(path):
        case {"model": str(model), "readings": dict(readings), "targets": list(targets)}:
            try:
                return model, readings, chosen_targets(targets)
            except (ConfigError, TypeError) as error:
                why = str(error)
        case _:
            why = "model, readings and targets are not all there"
    raise ArtifactError(f"{path} is no mark of a reproduction: {why}; remove it and run again")
