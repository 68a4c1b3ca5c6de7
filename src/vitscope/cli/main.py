"""The command line: verbs to functions, no logic."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from vitscope.cli.backbones import backbones
from vitscope.cli.console import (
    errors,
    print_outcome,
    print_selfcheck,
    print_title,
    print_to_keep,
)
from vitscope.cli.look import looking
from vitscope.cli.reproduce import reproduction
from vitscope.cli.results import result_verbs
from vitscope.cli.running import (
    PURPOSES,
    Json,
    Out,
    Set,
    StudyPath,
    is_rank_0,
    launched_by_torchrun,
    load,
    print_json,
    run_and_tell,
    run_in,
)
from vitscope.cli.saes import saes
from vitscope.errors import ConfigError, VitscopeError

# Modules that bring torch and timm are imported by the verb that needs them: help is instant.

MODES = ("oracle", "trained", "stress")


class _Interrupted(Exception):
    """Ctrl-C, under a name that typer does not take for its own and end without a word."""


class _Verbs(TyperGroup):
    """The group of all verbs."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _Interrupted from None


app = typer.Typer(
    cls=_Verbs,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Which features of a vision transformer are local, which are global?",
)

EXIT_CHECK_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

SPEAKING_TIME_S = 15.0
"""What another rank leaves rank 0 to tell its error and torchrun to notice."""


Model = Annotated[str | None, typer.Option(help="Backbone, instead of a study.")]
Photographs = Annotated[Path | None, typer.Option(help="Folder or list of images.")]


@app.command()
def run(
    study: Annotated[
        Path | None, typer.Argument(help="A study file (TOML), or a run directory.")
    ] = None,
    model: Model = None,
    images: Photographs = None,
    set_: Set = None,
    out: Out = None,
    json_: Json = False,
) -> None:
    """Run every stage of a study; what is unchanged since an earlier run is skipped.

    Without a study, --model and --images make one, which is written into the run directory.
    """
    if study is not None:
        if model is not None or images is not None:
            raise ConfigError("give a study, or --model and --images, not both")
        run_and_tell(load(study, set_), out, None, json_, study)
        return
    if model is None or images is None:
        raise ConfigError("give a study, a run directory, or --model and --images")
    from vitscope.study import study_of

    run_and_tell(study_of(model, images, overrides=set_ or ()), out, None, json_)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer scenes, no live training: under a minute.")
    ] = False,
    json_: Json = False,
) -> None:
    """Run the whole job on rendered scenes, with the backbone and the SAE that are embedded."""
    from vitscope.demo import FULL, QUICK, demo_runs

    *others, shown = demo_runs(out, QUICK if quick else FULL)
    for other in others:
        print_title(other.title)
        run_in(other.study, other.out, None)
    print_title(shown.title)
    run_and_tell(shown.study, shown.out, None, json_)


@app.command("score")
def score_verb(
    study: Annotated[
        Path | None, typer.Argument(help="A study file (TOML), or a run directory.")
    ] = None,
    model: Model = None,
    weights: Annotated[Path | None, typer.Option(help="Its local checkpoint.")] = None,
    layer: Annotated[
        str | None, typer.Option(help="Its block: from 1, from the end (-1), or penultimate.")
    ] = None,
    resolution: Annotated[int | None, typer.Option(help="Its input side in pixels.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16.")] = None,
    sae: Annotated[Path | None, typer.Option(help="Folder of an SAE.")] = None,
    images: Photographs = None,
    set_: Set = None,
    out: Out = None,
    json_: Json = False,
) -> None:
    """Score exemplar pairs: one stage of STUDY, or all it takes for --model, --sae, --images."""
    read = {"weights": weights, "layer": layer, "resolution": resolution, "precision": precision}
    if study is not None:
        if any(option is not None for option in (model, sae, images, *read.values())):
            raise ConfigError("give a study, or --model, --sae and --images, not both")
        run_and_tell(load(study, set_), out, ["score"], json_, study)
        return
    if model is None or sae is None or images is None:
        raise ConfigError("without a study, --model, --sae and --images are all needed")
    from vitscope.study import study_of

    made = study_of(model, images, sae=sae, backbone=read, overrides=set_ or ())
    run_and_tell(made, out, None, json_)


@app.command()
def selfcheck(
    images: Annotated[
        Path | None, typer.Option(help="Photographs to use; default: generated ones.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Keep the runs here.")] = None,
    only: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(MODES)}.")] = None,
    seed: Annotated[int, typer.Option(help="Of every draw.", min=0)] = 0,
    json_: Json = False,
) -> None:
    """Run the real pipeline where the truth is known; exit 1 when a bound fails."""
    unknown = set(only or ()) - set(MODES)
    if unknown:
        raise ConfigError(f"no selfcheck '{sorted(unknown)[0]}'; there are {', '.join(MODES)}")
    from vitscope.selfcheck.selfcheck import run_selfcheck

    report = run_selfcheck(
        images=images, out=out, modes=tuple(only or MODES), seed=seed, on_stage=print_outcome
    )
    if json_:
        checks = {run: [check.to_json() for check in rows] for run, rows in report.checks.items()}
        print_json({"passed": report.passed, "checks": checks})
    else:
        print_selfcheck(report)
    if not report.passed:
        raise typer.Exit(EXIT_CHECK_FAILED)


def _stage_command(name: str) -> Callable[..., None]:
    def command(study: StudyPath, set_: Set = None, out: Out = None, json_: Json = False) -> None:
        run_and_tell(load(study, set_), out, [name], json_, study)

    return command


@app.command(help=f"One stage: {PURPOSES['instability']}.")
def instability(
    study: StudyPath,
    shifts: Annotated[
        str | None, typer.Option(help="Compared besides the study's own: 1-6, or 1,3,5.")
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(help="Other tokens drawn per image, or all.")
    ] = None,
    set_: Set = None,
    out: Out = None,
    json_: Json = False,
) -> None:
    """Compare attention between views."""
    from vitscope.stages.instability import with_options

    asked = load(study, set_)
    changed = with_options(asked, shifts, tokens)
    run_and_tell(changed, out, ["instability"], json_, study)
    if changed != asked and not study.is_dir():
        print_to_keep(study, changed)


app.add_typer(looking)
app.add_typer(backbones)
app.add_typer(saes)
app.add_typer(result_verbs)
app.add_typer(reproduction)

_OWN = {
    command.name or getattr(command.callback, "__name__", "")
    for part in (app, backbones, saes, result_verbs)
    for command in part.registered_commands
}
for _name, _purpose in PURPOSES.items():
    if _name not in _OWN:
        app.command(_name, help=f"One stage: {_purpose}.")(_stage_command(_name))


def main() -> None:
    """Run the command line; a user's error is one line and exit code 2, never a traceback."""
    try:
        with _job():
            app()
    except VitscopeError as error:
        _let_rank_0_speak_first()
        errors.print(f"[red]error:[/red] {escape(_rank())}{escape(str(error))}")
        sys.exit(EXIT_USER_ERROR)
    except (_Interrupted, KeyboardInterrupt):
        if is_rank_0():
            errors.print("interrupted; run the same command again: finished work is kept")
        sys.exit(EXIT_INTERRUPTED)


def _job() -> AbstractContextManager[object]:
    """Join the job that torchrun started, if it did; torch is imported only then."""
    if not launched_by_torchrun():
        return nullcontext()
    from vitscope.distributed import job

    return job()


def _let_rank_0_speak_first() -> None:
    """Wait a moment: an error that all ranks share is rank 0's to tell, and torchrun ends the rest.

    So is that of a rank which only lost another: the one that died first has the reason.
    """
    if not is_rank_0():
        time.sleep(SPEAKING_TIME_S)


def _rank() -> str:
    return "" if is_rank_0() else f"[rank {os.environ['RANK']}] "
