"""What every verb shares: its usual options, and how a study is run and told of."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitscope.console import print_run, print_stage
from vitscope.errors import ConfigError

if TYPE_CHECKING:
    from vitscope.stages.context import StageOutcome
    from vitscope.study import Study

StudyPath = Annotated[Path, typer.Argument(help="A study file (TOML).", show_default=False)]
Out = Annotated[
    Path | None, typer.Option("--out", help="Run directory; default runs/NAME.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print results as JSON on standard output.")]


def load(path: Path) -> "Study":
    """Read a study file."""
    from vitscope.study import load_study

    return load_study(path)


def run_and_tell(
    study: "Study",
    out: Path | None,
    only: list[str] | None,
    json_: bool,
    source: Path | None = None,
) -> None:
    """Run stages of a study and print what came out; ``source`` is its file, never overwritten."""
    out = run_folder(study, out, source)
    outcomes = run_stages(study, out, only)
    if not speaks():
        return
    if json_:
        stages = {
            name: {
                "seconds": outcome.stamp.seconds,
                "unchanged": outcome.skipped,
                **outcome.stamp.summary,
            }
            for name, outcome in outcomes.items()
        }
        print_json({"run": str(out.absolute()), "stages": stages})
    else:
        print_run(outcomes, out)


def run_stages(study: "Study", out: Path, only: list[str] | None) -> "dict[str, StageOutcome]":
    """Run stages of a study, saying when each has ended."""
    from vitscope.pipeline import run_study

    on_stage = print_stage if speaks() else None
    return run_study(study, out.absolute(), only=only, on_stage=on_stage)


def speaks() -> bool:
    """Whether this process tells the job's results: rank 0, or a process alone."""
    return os.environ.get("RANK", "0") == "0" or not launched_by_torchrun()


def launched_by_torchrun() -> bool:
    """Whether this is one of several processes; torch is imported only where it may be."""
    if "WORLD_SIZE" not in os.environ:
        return False
    from vitscope.distributed import is_launched

    return is_launched()


def run_folder(study: "Study", out: Path | None, source: Path | None) -> Path:
    """Return the run directory, ``out`` or the default, where ``source`` is not overwritten."""
    out = out or default_out(study)
    if source is not None and (out / "study.toml").resolve() == source.resolve():
        raise ConfigError(f"--out {out} would overwrite {source}; choose another run directory")
    return out


def default_out(study: "Study") -> Path:
    """Return the run directory of a study without ``--out``."""
    from vitscope.study import folder_name

    return Path("runs") / folder_name(study)


def print_json(value: Any) -> None:
    """Print JSON on standard output."""
    print(json.dumps(value, indent=2, default=str))
