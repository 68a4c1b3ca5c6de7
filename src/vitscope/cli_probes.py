"""The verbs about probes: what they need, what they find, and that over model sizes."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from vitscope.cli_run import (
    Json,
    Out,
    StudyPath,
    default_out,
    load,
    print_json,
    run_and_tell,
    run_stages,
    speaks,
)
from vitscope.console import print_lines, print_title, results
from vitscope.stages.purposes import PURPOSES

probes = typer.Typer()


@probes.command(help=f"One stage: {PURPOSES['probe']}.")
def probe(
    study: StudyPath,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what it takes in GB and hours, and do nothing.")
    ] = False,
    out: Out = None,
    json_: Json = False,
) -> None:
    """Train linear probes, or tell what that takes."""
    if not plan:
        run_and_tell(load(study), out, ["probe"], json_, study)
        return
    from vitscope.stages.probe_plan import plan_lines, plan_notes, plan_probes

    asked = load(study)
    found = plan_probes(asked, out or default_out(asked))
    if json_:
        print_json(asdict(found))
    else:
        print_lines(*plan_lines(found), plan_notes(found))


@probes.command()
def scaling(
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
    from vitscope.stages.scaling import scaling_lines, scaling_result
    from vitscope.stages.scaling_plan import scaling_plan
    from vitscope.store.atomic import read_json

    plan = scaling_plan(sources, models, task, out)
    for study, folder in plan.to_run:
        print_title(study.name)
        run_stages(study, folder, None)
    if not speaks():
        return
    found, files = scaling_result(plan, out)
    if json_:
        print_json(read_json(files[0]))
        return
    print_lines(*scaling_lines(found), found.notes)
    for file in files:
        results.print(escape(str(file)), soft_wrap=True)
