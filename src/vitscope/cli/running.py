"""What every verb shares: its usual options, and how a study is run and told of."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitscope.cli.console import print_outcome, print_run
from vitscope.errors import ConfigError
from vitscope.pipeline import purposes

if TYPE_CHECKING:
    from vitscope.stages.stage import Outcome
    from vitscope.study import Study

PURPOSES = purposes()
"""Of every stage, read once for all verbs."""

StudyPath = Annotated[
    Path, typer.Argument(help="A study file (TOML), or a run directory.", show_default=False)
]
Out = Annotated[
    Path | None, typer.Option("--out", help="Run directory; default runs/NAME.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print results as JSON on standard output.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Override a setting: scope.gamma=0.3; again for more.", show_default=False
    ),
]


def load(path: Path, overrides: Sequence[str] | None = None) -> "Study":
    """Read a study file, or that of a run directory, with settings overridden."""
    from vitscope.study import load_study

    return load_study(path, overrides or ())


def run_and_tell(
    study: "Study",
    out: Path | None,
    only: list[str] | None,
    json_: bool,
    source: Path | None = None,
) -> None:
    """Run stages of a study and print what came out.

    ``source`` is where the study was read: a file, which is never overwritten, or a run directory,
    in which the stages then run.
    """
    out = run_folder(study, out, source)
    outcomes = run_in(study, out, only)
    if not is_rank_0():
        return
    if not json_:
        print_run(outcomes, out)
        return
    stages = {
        name: {
            "seconds": one.stamp.seconds,
            "unchanged": one.skipped,
            "rates": one.stamp.rates,
            **one.stamp.result,
        }
        for name, one in outcomes.items()
    }
    print_json({"run": str(out.absolute()), "stages": stages})


def run_in(study: "Study", out: Path, only: list[str] | None) -> "dict[str, Outcome]":
    """Run stages of a study, saying when each has ended."""
    from vitscope.pipeline import run_study

    on_stage = print_outcome if is_rank_0() else None
    return run_study(study, out.absolute(), only=only, on_stage=on_stage)


def is_rank_0() -> bool:
    """Whether this process tells the job's results: rank 0, or a process alone."""
    return os.environ.get("RANK", "0") == "0" or not launched_by_torchrun()


def launched_by_torchrun() -> bool:
    """Whether this is one of several processes; torch is imported only where it may be."""
    if "WORLD_SIZE" not in os.environ:
        return False
    from vitscope.distributed import is_launched

    return is_launched()


def run_folder(study: "Study", out: Path | None, source: Path | None) -> Path:
    """Return the run directory: ``out``, the one that was given as the study, or the default.

    Raises:
        ConfigError: a study file lies there, and would be overwritten.
    """
    from vitscope.study import folder_name

    if source is not None and source.is_dir():
        return out or source
    out = out or Path("runs") / folder_name(study)
    if source is not None and (out / "study.toml").resolve() == source.resolve():
        raise ConfigError(
            f"--out {out} would overwrite {source}; choose another run directory, or give {out} "
            "itself in place of the file"
        )
    return out


def print_json(value: Any) -> None:
    """Print JSON on standard output."""
    print(json.dumps(value, indent=2, default=str))
