"""What a finished stage leaves: what it was made from, what it wrote, and its result."""

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from vitscope.errors import ArtifactError
from vitscope.store.atomic import file_checksum, fingerprint, read_json, write_json
from vitscope.store.run_directory import RunDirectory

STAMP_SCHEMA = 2
"""Bumped when the meaning of a stamp or of any artifact of a run directory changes.

1: stages told their results in tables of JSON of their own, before results were records.
"""

LIBRARIES = ("vitscope", "torch", "timm", "numpy", "scipy", "pot", "pillow")


@dataclass(frozen=True)
class Stamp:
    """A finished stage.

    Attributes:
        schema: of the run directory.
        stage: its name.
        fingerprint: hash of the stage's settings and of its inputs.
        settings: everything that changes its result, as plain JSON.
        inputs: name -> content hash of what it read.
        outputs: path in the run directory -> SHA-256 of the file.
        result: its record, as plain JSON; tables and other files are among the outputs.
        seconds: wall time of the process that finished it.
        rates: images, views or tokens per second of that process, by name.
        versions: library -> version.
    """

    schema: int
    stage: str
    fingerprint: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    outputs: dict[str, str]
    result: Any
    seconds: float
    rates: dict[str, float]
    versions: dict[str, str]

    @property
    def digest(self) -> str:
        """Hash of what the stage found: what the next stage names as its input."""
        return fingerprint({"outputs": self.outputs, "result": self.result})


def read_stamp(run: RunDirectory, stage: str) -> Stamp | None:
    """Return the stamp of ``stage``, or None when it has not finished.

    Raises:
        ArtifactError: the run was written by a newer vitscope.
    """
    path = run.stamp(stage)
    if not path.exists():
        return None
    try:
        values = read_json(path)
        schema = int(values["schema"])
    except (ArtifactError, KeyError, TypeError, ValueError, OverflowError):
        return None  # a damaged stamp proves nothing: the stage runs again
    if schema > STAMP_SCHEMA:
        raise ArtifactError(
            f"{run.root} was written by a newer vitscope (schema {schema}, this one knows "
            f"{STAMP_SCHEMA}); upgrade vitscope or choose another --out"
        )
    try:
        mappings = (values[n] for n in ("settings", "inputs", "outputs", "rates", "versions"))
        whole = schema == STAMP_SCHEMA and all(isinstance(one, dict) for one in mappings)
        return Stamp(**values) if whole else None
    except (KeyError, TypeError):
        return None  # fields missing or foreign: damaged as well


def refuse_older(run: RunDirectory, stages: tuple[str, ...]) -> None:
    """Refuse a run whose stages an earlier vitscope has finished, in a layout of its own.

    Raises:
        ArtifactError: naming the run and what to do.
    """
    for stage in stages:
        path = run.stamp(stage)
        if not path.is_file():
            continue
        try:
            schema = read_json(path)["schema"]
        except (ArtifactError, KeyError, TypeError):
            continue
        if isinstance(schema, int) and schema < STAMP_SCHEMA:
            raise ArtifactError(
                f"{run.root} was made by an earlier vitscope (layout {schema}, this one reads "
                f"{STAMP_SCHEMA}); run `vitscope run {run.root}` to make it anew, or open it with "
                "that version"
            )


def write_stamp(run: RunDirectory, stamp: Stamp) -> Stamp:
    """Write a stamp and return it as it reads back: a skipped stage must say what a fresh one said.

    NaN is null there, and a tuple a list.
    """
    write_json(run.stamp(stamp.stage), asdict(stamp))
    return Stamp(**read_json(run.stamp(stamp.stage)))


def outputs_whole(run: RunDirectory, stamp: Stamp) -> bool:
    """Whether every output of a stage is there with the checksum that the stamp names."""
    for relative, checksum in stamp.outputs.items():
        path = run.root / relative
        if not path.is_file() or file_checksum(path) != checksum:
            return False
    return True


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide results."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
