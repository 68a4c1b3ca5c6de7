"""The verb that compares model sizes."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from vitscope.cli_run import Json, print_json, run_stages
from vitscope.console import print_title, results

scaling = typer.Typer()


@scaling.command("scaling")
def scale(
    sources: Annotated[
        list[Path], typer.Argument(help="Finished runs, or studies, which are run first.")
    ],
    models: Annotated[
        str | None, typer.Option(help="Backbones to run the one study with: small,base,large.")
    ] = None,
    task: Annotated[
        str, typer.Option(help="classification, segmentation or depth.")
    ] = "classification",
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the figure, its table and the runs made.")
    ] = Path("runs/scaling"),
    json_: Json = False,
) -> None:
    """Draw what probes read with and without each group, over the model sizes of a family."""
    from vitscope.artifacts.atomic import read_json
    from vitscope.stages.scaling import scaling_lines, scaling_result
    from vitscope.stages.scaling_plan import scaling_plan

    plan = scaling_plan(sources, models, task, out)
    for study, folder in plan.to_run:
        print_title(study.name)
        run_stages(study, folder, None)
    found, files = scaling_result(plan, out)
    if json_:
        print_json(read_json(files[0]))
        return
    headings, rows = scaling_lines(found)
    table = Table(box=None)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    results.print(table)
    for note in found.notes:
        results.print(f"[dim]{escape(note)}[/dim]", soft_wrap=True)
    for file in files:
        results.print(escape(str(file)), soft_wrap=True)
