"""The verbs that look at finished runs, which may be a stranger's: figures, and the explorer."""

import webbrowser
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vitscope.cli_run import Json, print_json
from vitscope.console import print_address, print_figures

looking = typer.Typer()

RunCode = Annotated[
    bool, typer.Option("--run-code", help="Execute a backbone that a study has as Python.")
]


@looking.command()
def figures(
    runs: Annotated[list[Path], typer.Argument(help="Run directories.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder; default figures/ in the first.", show_default=False),
    ] = None,
    run_code: RunCode = False,
    json_: Json = False,
) -> None:
    """Draw the first run's figures as PDF, SVG and PNG; with more runs, some beside one another."""
    from vitscope.stages.figures import write_figures

    outcomes = write_figures(runs, out, run_code=run_code)
    if json_:
        rows = {
            one.name: {"files": [str(path) for path in one.files], "reason": one.reason}
            for one in outcomes
        }
        print_json({"figures": rows})
    else:
        print_figures(outcomes)


@looking.command()
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
    from vitscope.errors import ConfigError
    from vitscope.explorer.live import LiveRun
    from vitscope.explorer.serve import require_local, serve
    from vitscope.saved_gamma import save_gamma
    from vitscope.stages.explore import load_models, read_run

    if len(runs) > 2:
        raise ConfigError(f"{len(runs)} runs given; the explorer shows one, or two side by side")
    require_local(host, allow_host or [])

    def on_ready(address: str) -> None:
        print_address(address)
        if browser:
            webbrowser.open(address)

    live = [
        LiveRun(
            read=partial(read_run, run.absolute()),
            load=partial(load_models, run.absolute(), run_code=run_code),
            save=None if read_only else partial(save_gamma, run.absolute(), run_code=run_code),
        )
        for run in runs
    ]
    serve(live, host=host, port=port, also=allow_host or [], on_ready=on_ready)
