"""The verbs about SAEs: training, comparing, and giving away."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vitscope.cli.console import print_lines, print_outcome, print_push, results
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
)

saes = typer.Typer()


@saes.command(help=f"One stage: {PURPOSES['train']}.")
def train(
    study: StudyPath,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Every SAE of [sae.sweep] over one pass of the tokens.")
    ] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Stream tokens from the backbone; keep none.")
    ] = False,
    set_: Set = None,
    out: Out = None,
    json_: Json = False,
) -> None:
    """Train an SAE, or several over one pass of the activations."""
    asked = load(study, [*(set_ or ()), *(["activations.cache=false"] if no_cache else [])])
    if not sweep:
        run_and_tell(asked, out, ["extract", "train"] if no_cache else ["train"], json_, study)
        return
    from vitscope.pipeline import run_stages, stage_named
    from vitscope.stages.sweep import sweep_lines

    folder = run_folder(asked, out, study).absolute()
    stages = [stage_named("images"), stage_named("extract")]
    stages.append(stage_named("sweep", "vitscope.stages.sweep"))
    names = [stage.name for stage in stages]
    on_stage = print_outcome if is_rank_0() else None
    outcomes = run_stages(stages, asked, folder, names, on_stage)
    if not is_rank_0():
        return
    found = outcomes["sweep"]
    if json_:
        print_json({"run": str(folder), "saes": found.stamp.result["rows"]})
    else:
        print_lines(*sweep_lines(found.result.rows))


@saes.command()
def compare(
    saes: Annotated[list[Path], typer.Argument(help="SAEs of any format, or run directories.")],
    json_: Json = False,
) -> None:
    """Match the features of SAEs: how many does each share with the others?"""
    from vitscope.compare import compare_saes, comparison_lines

    found = compare_saes(saes)
    if json_:
        pairs = [
            {key: _or_null(value) for key, value in asdict(pair).items()} for pair in found.pairs
        ]
        print_json({"pairs": pairs, "recovered_in_all": found.recovered_in_all})
        return
    print_lines(*comparison_lines(found))
    results.print(f"features of the first that all others have: {found.recovered_in_all:.1%}")


def _or_null(value: object) -> object:
    """JSON has no NaN, which stands here for what is not defined."""
    return None if isinstance(value, float) and math.isnan(value) else value


@saes.command()
def export(
    sae: Annotated[Path, typer.Argument(help="An SAE of any format, or a run directory.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    to: Annotated[str, typer.Option(help="saelens, or hub: a folder ready for push.")] = "hub",
    data: Annotated[str, typer.Option(help="What the images are, for the README.")] = "",
    license_: Annotated[str, typer.Option("--license", help="SPDX name, for the README.")] = "",
) -> None:
    """Write an SAE for SAELens, or with README, card and feature table for the hub."""
    from vitscope.publish import export_sae

    for path in export_sae(sae, out, to=to, data=data, license=license_):
        print(path)


@saes.command()
def push(
    folder: Annotated[Path, typer.Argument(help="What `vitscope export` wrote.")],
    repo: Annotated[str, typer.Argument(help="owner/name on the Hugging Face hub.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List, and send nothing.")] = False,
    public: Annotated[bool, typer.Option("--public", help="A new repository is public.")] = False,
    json_: Json = False,
) -> None:
    """Upload a folder of `vitscope export` to the hub."""
    from vitscope.sae.formats.hub import push_sae as upload

    done = upload(folder, repo, dry_run=dry_run, private=not public)
    if json_:
        print_json({"repo": done.repo, "files": dict(done.files), "url": done.url})
    else:
        print_push(done)
