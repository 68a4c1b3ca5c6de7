"""The verb that makes the paper's tables and figures: many options, no logic."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from vitscope.cli.console import print_outcome, print_title, results
from vitscope.cli.running import Json, is_rank_0, load, print_json
from vitscope.errors import ConfigError

if TYPE_CHECKING:
    from vitscope.paper.runs import Request

reproduction = typer.Typer()

DATA = Path("data")

LONG = ("what", "weights", "data", "claim", "why", "models")
"""Columns that may be broken over lines."""


@reproduction.command()
def reproduce(
    targets: Annotated[
        list[str] | None, typer.Argument(help="table3 … table9, figure6 … figure10, all.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Backbone, again for more; default: the paper's.")
    ] = None,
    study: Annotated[
        list[Path] | None, typer.Option(help="Judge a study of your own; again for more.")
    ] = None,
    data: Annotated[Path, typer.Option(help="Of imagenet/, ADEChallengeData2016/, nyud/.")] = DATA,
    images: Annotated[
        Path | None, typer.Option(help="Other images than ImageNet: your own photographs.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many images.", min=1)] = None,
    weights: Annotated[Path | None, typer.Option(help="The model's local checkpoint.")] = None,
    sae: Annotated[Path | None, typer.Option(help="An SAE, instead of training one.")] = None,
    assume: Annotated[
        list[str] | None, typer.Option(help="Another reading, KEY=VALUE; again for more.")
    ] = None,
    readings: Annotated[bool, typer.Option(help="Also what one run cannot hold.")] = True,
    out: Annotated[Path, typer.Option("--out", help="Folder of all runs and of the page.")] = Path(
        "runs/reproduce"
    ),
    list_: Annotated[bool, typer.Option("--list", help="List what each target needs.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Price it, and run nothing.")] = False,
    tflops: Annotated[float | None, typer.Option(help="TFLOP/s, of --plan.", min=1e-3)] = None,
    studies: Annotated[
        Path | None, typer.Option(help="Write the study of every model here, and run nothing.")
    ] = None,
    json_: Json = False,
) -> None:
    """Make the paper's tables and figures: its numbers, ours, a verdict on each claim."""
    from vitscope.paper.assumptions import read_assumptions
    from vitscope.paper.runs import Request
    from vitscope.paper.studies import Sources

    if studies is not None:
        _write_studies(studies)
        return
    if list_:
        _list(json_)
        return
    if study and (model or images or limit or weights or sae):
        raise ConfigError("--study says itself what is run on what; leave the other options out")
    request = Request(
        targets=tuple(targets or ()),
        models=tuple(model or ()),
        sources=Sources(data, images, weights, sae, limit),
        readings=read_assumptions(assume or ()),
        other_readings=readings,
        out=out.absolute(),
        studies=tuple(load(one) for one in study or ()),
    )
    if plan:
        _plan(request, tflops, json_)
    else:
        _run(request, json_)


def _run(request: "Request", json_: bool) -> None:
    from vitscope.paper.comparison import gather, to_values, write_numbers
    from vitscope.paper.page import verdict_lines, write_page
    from vitscope.paper.runs import plan_runs, run_planned

    for planned in plan_runs(request):
        if is_rank_0():
            print_title(planned.name)
        run_planned(planned, print_outcome if is_rank_0() else None)
    if not is_rank_0():
        return
    found = gather(request.out)
    page, numbers = write_page(found), write_numbers(found)
    if json_:
        print_json({"page": str(page), **to_values(found)})
        return
    _print(*verdict_lines(found))
    for label, path in (("page", page), ("numbers", numbers)):
        results.print(f"[bold]{label:<8}[/bold] {escape(str(path))}", soft_wrap=True)


def _list(json_: bool) -> None:
    from vitscope.paper.page import target_lines

    headings, rows = target_lines()
    if json_:
        print_json({row[0]: dict(zip(headings[1:], row[1:], strict=True)) for row in rows})
    else:
        _print(headings, rows)


def _plan(request: "Request", tflops: float | None, json_: bool) -> None:
    from vitscope.paper.page import price_lines
    from vitscope.paper.prices import Machine

    machine = Machine() if tflops is None else Machine(tflops=tflops)
    headings, rows, said = price_lines(request, machine)
    if json_:
        print_json({"runs": [dict(zip(headings, row, strict=True)) for row in rows], "notes": said})
        return
    _print(headings, rows)
    for line in said:
        results.print(escape(line))


def _write_studies(folder: Path) -> None:
    from vitscope.paper.studies import write_study_files

    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--studies {folder} is a file; give a folder")
    for path in write_study_files(folder):
        results.print(escape(str(path)), soft_wrap=True)


def _print(headings: list[str], rows: list[list[str]]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading not in LONG)
    for row in rows:
        table.add_row(*map(escape, row))
    results.print(table)
