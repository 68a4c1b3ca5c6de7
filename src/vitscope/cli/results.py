"""Verbs about what runs show: figures, the explorer, probes and their scaling with model size."""

import webbrowser
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from vitscope.cli.console import print_address, print_figures, print_lines, print_title, results
from vitscope.cli.running import (
    PURPOSES,
    Json,
    Out,
    Set,
    StudyPath,
    is_rank_0,
    load,
    print_json,
    run_and_tell,
    run_folder,
    run_in,
)
from vitscope.errors import ConfigError

result_verbs = typer.Typer()

RunCode = Annotated[
    bool, typer.Option("--run-code", help="Execute a backbone that a study has as Python.")
]


@result_verbs.command()
def figures(
    runs: Annotated[list[Path], typer.Argument(help="Run directories.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder; default figures/ in the first.", show_default=False),
    ] = None,
    json_: Json = False,
) -> None:
    """Draw the first run's figures as PDF, SVG and PNG; with more runs, some beside one another."""
    from vitscope.figures.catalogue import write_figures
    from vitscope.run import Run

    outcomes = write_figures([Run(run) for run in runs], out)
    if json_:
        rows = {
            one.name: {"files": [str(path) for path in one.files], "reason": one.reason}
            for one in outcomes
        }
        print_json({"figures": rows})
    else:
        print_figures(outcomes)


@result_verbs.command()
def explore(
    runs: Annotated[
        list[Path], typer.Argument(help="A run directory, or two to compare.", show_default=False)
    ],
    port: Annotated[int, typer.Option(help="0 takes any that is free.", min=0, max=65535)] = 8765,
    host: Annotated[str, typer.Option(help="Address to bind; loopback unless …")] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="… this machine is named as others call it; they then see the images."),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page.")] = True,
    read_only: Annotated[bool, typer.Option("--read-only", help="γ cannot be saved.")] = False,
    run_code: RunCode = False,
) -> None:
    """Look at runs in the browser: features, images, removal; served on this machine alone."""
    from vitscope.explorer.live import LiveRun
    from vitscope.explorer.server import require_local, serve

    if len(runs) > 2:
        raise ConfigError(f"{len(runs)} runs given; the explorer shows one, or two side by side")
    require_local(host, allow_host or [])

    def on_ready(address: str) -> None:
        print_address(address)
        if browser:
            webbrowser.open(address)

    live = [LiveRun(run.absolute(), run_code=run_code, read_only=read_only) for run in runs]
    serve(live, host=host, port=port, also=allow_host or [], on_ready=on_ready)


@result_verbs.command(help=f"One stage: {PURPOSES['probe']}.")
def probe(
    study: StudyPath,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what it takes in GB and hours, and do nothing.")
    ] = False,
    set_: Set = None,
    out: Out = None,
    json_: Json = False,
) -> None:
    """Train linear probes, or tell what that takes."""
    asked = load(study, set_)
    if not plan:
        run_and_tell(asked, out, ["probe"], json_, study)
        return
    from vitscope.stages.probe_plan import plan_lines, plan_notes, plan_probes

    found = plan_probes(asked, run_folder(asked, out, study))
    if json_:
        print_json(asdict(found))
    else:
        print_lines(*plan_lines(found), plan_notes(found))


@result_verbs.command()
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
    from vitscope.figures.scaling import scaling_lines, scaling_plan, scaling_result
    from vitscope.store.atomic import read_json

    plan = scaling_plan(sources, models, task, out)
    for study, folder in plan.to_run:
        print_title(study.name)
        run_in(study, folder, None)
    if not is_rank_0():
        return
    found, files = scaling_result(plan, out)
    if json_:
        print_json(read_json(files[0]))
        return
    print_lines(*scaling_lines(found), found.notes)
    for file in files:
        results.print(escape(str(file)), soft_wrap=True)
