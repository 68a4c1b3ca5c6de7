"""The verb for a newcomer's own photographs: `vitscope look PHOTOS`."""

import time
import webbrowser
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from vitscope.cli.console import errors, print_lines, print_outcome, results
from vitscope.cli.results import explore
from vitscope.cli.running import Json, Out, print_json

if TYPE_CHECKING:
    from vitscope.look.looking import FolderContents, Looking

looking = typer.Typer()


@looking.command("look")
def look_verb(
    photographs: Annotated[
        Path, typer.Argument(help="A folder of photographs.", show_default=False)
    ],
    model: Annotated[str, typer.Option(help="Backbone.")] = "focus-s",
    sae: Annotated[
        Path | None,
        typer.Option(
            help="Folder of its SAE; default: the one in the package.", show_default=False
        ),
    ] = None,
    most: Annotated[int, typer.Option(help="At most so many, evenly spread.", min=4)] = 1000,
    out: Out = None,
    port: Annotated[int, typer.Option(help="0 takes any that is free.", min=0, max=65535)] = 8765,
    browser: Annotated[bool, typer.Option(help="Open pages.")] = True,
    open_: Annotated[
        bool, typer.Option("--open/--no-open", help="Serve the explorer at the end.")
    ] = True,
    json_: Json = False,
) -> None:
    """Take a folder of photographs apart in local and global features, and explore them."""
    started = time.monotonic()
    from vitscope.look.looking import fetch_model, look, plan_look, read_photographs
    from vitscope.look.summary import feature_rows, look_notes, summarise_look

    plan = plan_look(photographs, model, sae, out, most)
    _tell_plan(plan)
    fetch_model(model)
    found = read_photographs(plan, print_outcome)
    _tell_photographs(plan, found)

    def on_first(page: Path, n: int) -> None:
        took = f"{time.monotonic() - started:.0f} s"
        _tell(f"a first look at {n} photographs after {took}: {page}")
        if browser and open_:
            webbrowser.open(page.as_uri())

    run = look(plan, found, on_stage=print_outcome, on_first=on_first)
    summary = summarise_look(run)
    if json_:
        print_json({"run": str(plan.out), "photographs": asdict(found), **asdict(summary)})
    else:
        print_lines(*feature_rows(summary), look_notes(summary))
        results.print(f"\n[bold]run[/bold]  {escape(str(plan.out))}", soft_wrap=True)
    _tell(f"{found.n_used} photographs in {time.monotonic() - started:.0f} s")
    if open_:
        explore([plan.out], port=port, browser=browser)


def _tell_plan(plan: "Looking") -> None:
    from vitscope.look.looking import download_bytes

    model = plan.study.backbone.name
    size = download_bytes(model)
    fetched = {None: "is fetched first, once", 0: "nothing to fetch"}.get(
        size, f"is fetched first, once: {(size or 0) / 1e6:.0f} MB"
    )
    _tell(f"{plan.n_files:,} pictures in {plan.photographs}; model {model}: {fetched}")
    _tell(f"everything is written to {plan.out}, nothing is sent anywhere")


def _tell_photographs(plan: "Looking", found: "FolderContents") -> None:
    """Say what of the folder is used, and what of it to be wary of."""
    left_out = sum(found.skipped.values())
    _tell(f"{found.n_used:,} photographs are looked at, {left_out:,} files are not")
    for reason, n in found.skipped.items():
        _tell(f"  {n:,}: {reason}")
    if left_out:
        _tell(f"  each by name: {plan.out / 'skipped.csv'}")
    if found.n_wide:
        _tell(
            f"{found.n_wide:,} are more than twice as long as wide: the model sees the square in "
            "their middle, less than half of each"
        )
    if found.n_alike:
        _tell(
            f"{found.n_alike:,} look nearly alike in {found.n_groups:,} groups (bursts): a feature "
            "that is strongest on such a group is scored on one scene more than once"
        )


def _tell(line: str) -> None:
    errors.print(line, markup=False)
