"""A stage of the pipeline: skipped when nothing changed, redone when an input or setting did."""

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vitscope.errors import ArtifactError
from vitscope.store.atomic import read_json, write_json
from vitscope.store.checksum import file_checksum, fingerprint
from vitscope.store.parts import discard_parts
from vitscope.store.run_directory import RunDirectory

STAMP_SCHEMA = 1
"""Bumped when the meaning of a stamp or of any artifact of a run directory changes."""

LIBRARIES = ("vitscope", "torch", "timm", "numpy", "scipy", "pot", "pillow")


@dataclass(frozen=True)
class Stamp:
    """What a finished stage was made from, and what it left.

    Attributes:
        fingerprint: hash of the stage's settings and of its inputs.
        outputs: path in the run directory -> SHA-256 of the file.
        summary: the stage's headline numbers, as plain JSON.
        seconds: wall time of the process that finished it.
    """

    schema: int
    stage: str
    fingerprint: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    outputs: dict[str, str]
    summary: dict[str, Any]
    seconds: float
    versions: dict[str, str]


@dataclass(frozen=True)
class StageOutput:
    """What the body of a stage returns: the files it wrote and its headline numbers."""

    files: list[Path]
    summary: dict[str, Any]


StageBody = Callable[[str], StageOutput]


def run_stage(
    run: RunDirectory,
    name: str,
    *,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    body: StageBody | None,
) -> tuple[Stamp, bool]:
    """Run ``body(fingerprint)`` unless a stamp of the same settings and inputs stands.

    Args:
        run: the run directory, locked by the caller.
        name: the stage's name.
        settings: everything that changes the stage's result, as plain JSON.
        inputs: name -> content hash of what the stage reads.
        body: does the work; handed the fingerprint for its own partial results. None: nothing may
            be done, and a stage that does not stand is an error.

    Returns:
        the stamp, and whether the work was skipped.

    Raises:
        ArtifactError: nothing may be done, and the stage is not up to date.
    """
    made_from = {"settings": dict(settings), "inputs": dict(inputs)}
    key = fingerprint({"schema": STAMP_SCHEMA, "stage": name, **made_from})
    standing = read_stamp(run, name)
    if standing is not None and standing.fingerprint == key and _outputs_whole(run, standing):
        discard_parts(run.parts(name))  # a kill may have come between the stamp and this
        return standing, True
    if body is None:
        raise ArtifactError(
            f"stage '{name}' in {run.root} was made under other settings or inputs; run "
            f"`vitscope run` on this study, or `vitscope {name}` first"
        )
    run.stamp(name).unlink(missing_ok=True)  # outputs about to change must not look finished
    started = time.monotonic()
    output = body(key)
    stamp = Stamp(
        schema=STAMP_SCHEMA,
        stage=name,
        fingerprint=key,
        settings=dict(settings),
        inputs=dict(inputs),
        outputs={str(p.relative_to(run.root)): file_checksum(p) for p in output.files},
        summary=output.summary,
        seconds=round(time.monotonic() - started, 3),
        versions=library_versions(),
    )
    write_json(run.stamp(name), asdict(stamp))
    discard_parts(run.parts(name))
    # as read back (NaN is null, a tuple a list): a skipped stage must say what a fresh one said
    return Stamp(**read_json(run.stamp(name))), False


def read_stamp(run: RunDirectory, name: str) -> Stamp | None:
    """Return the stamp of stage ``name``, or None when it has not finished.

    Raises:
        ArtifactError: the run was written by a newer vitscope.
    """
    path = run.stamp(name)
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
        is_whole = isinstance(values["outputs"], dict) and isinstance(values["summary"], dict)
        return Stamp(**values) if schema == STAMP_SCHEMA and is_whole else None
    except (KeyError, TypeError):
        return None  # fields missing or foreign: damaged as well


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide results."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def outputs_digest(stamp: Stamp) -> str:
    """Hash of a stage's outputs: what the next stage names as its input."""
    return fingerprint(stamp.outputs)


def _outputs_whole(run: RunDirectory, stamp: Stamp) -> bool:
    for relative, checksum in stamp.outputs.items():
        path = run.root / relative
        if not path.is_file() or file_checksum(path) != checksum:
            return False
    return True
