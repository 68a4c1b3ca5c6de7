"""What a person reads on the terminal: a line per stage, a table at the end."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:  # they bring torch and timm, which `--help` should not wait for
    from vitscope.pipeline import Stage
    from vitscope.sae.formats.push import Push
    from vitscope.selfcheck.check import Check
    from vitscope.selfcheck.selfcheck import SelfcheckReport
    from vitscope.stages.context import StageOutcome
    from vitscope.stages.figures import FigureOutcome
    from vitscope.study import Study

errors = Console(stderr=True, highlight=False, soft_wrap=True)
results = Console(highlight=False)

Summary = Mapping[str, Any]

_READINGS = ("query", "received", "key")


def print_stage(stage: "Stage", outcome: "StageOutcome") -> None:
    """Say that a stage has ended, on standard error."""
    print_stage_name(stage.name, outcome)


def print_stage_name(name: str, outcome: "StageOutcome") -> None:
    """Say that a stage has ended that is no part of the pipeline's list."""
    if outcome.skipped:
        errors.print(f"[dim]· {name:<12} unchanged[/dim]")
    else:
        note = _given_sae(outcome.stamp.summary)
        errors.print(f"[green]✓[/green] {name:<12} {outcome.stamp.seconds:7.1f} s{note}")


def print_title(title: str) -> None:
    """Say, on standard error, what the following stages are for."""
    errors.print(f"[bold]▸ {escape(title)}[/bold]")


def print_run(outcomes: Mapping[str, "StageOutcome"], out: Path) -> None:
    """Print the headline numbers of the stages that ran, and where the results lie."""
    table = Table(title=None, show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, outcome in outcomes.items():
        for label, value in _HEADLINES.get(name, _nothing)(outcome.stamp.summary):
            table.add_row(label, value)
    results.print(table)
    label, where = "run", out
    if "report" in outcomes:
        label, where = "report", out / outcomes["report"].stamp.summary["path"]
    # a path is copied from here: it must be neither wrapped nor read as markup
    results.print(f"\n[bold]{label}[/bold]  {escape(str(where))}", soft_wrap=True)


def print_figures(outcomes: "Sequence[FigureOutcome]") -> None:
    """List the figures that were written and those that were not, with the reason."""
    table = Table(title=None, show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(width=1)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for one in outcomes:
        text = one.shows if one.files else f"[dim]{escape(one.reason)}[/dim]"
        table.add_row("[green]✓[/green]" if one.files else "[dim]·[/dim]", one.name, text)
    results.print(table)
    first = next(one for one in outcomes if one.files).files[0]
    results.print(f"\n[bold]figures[/bold]  {escape(str(first.parent))}", soft_wrap=True)


def print_address(address: str) -> None:
    """Say where the explorer answers."""
    results.print(f"[bold]explorer[/bold]  {address}  (Ctrl-C ends it)", soft_wrap=True)
    results.file.flush()  # who reads it through a pipe waits for it


def print_lines(headings: list[str], rows: list[list[str]], notes: Sequence[str] = ()) -> None:
    """Print a table, and what is to be said of it below."""
    table = Table(box=None)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    results.print(table)
    for note in notes:
        results.print(note, style="dim", markup=False, soft_wrap=True)


def print_push(done: "Push") -> None:
    """List what was uploaded, or would be."""
    for name, size in done.files:
        results.print(f"{size:>12,}  {escape(name)}", soft_wrap=True)
    where = f"sent: {done.url}" if done.url else "nothing was sent"
    results.print(f"{done.n_bytes:,} bytes to {escape(done.repo)}; {where}", soft_wrap=True)


def print_to_keep(source: Path, changed: "Study") -> None:
    """Say, on standard error, what a study file needs for later commands to agree with this one."""
    shifts, tokens = changed.instability.shifts, changed.outliers.tokens_per_image
    errors.print(
        f"note: later commands read {source}; to keep these options there, write in it\n"
        f"[instability]\nshifts = {list(shifts)}\n[outliers]\ntokens_per_image = {tokens}",
        style="dim",
        markup=False,
    )


def print_selfcheck(report: "SelfcheckReport") -> None:
    """Print every check beside its truth; failures in red."""
    for run, checks in report.checks.items():
        table = Table(title=f"selfcheck: {run}", title_justify="left", box=None)
        table.add_column("", width=1)
        table.add_column("figure", no_wrap=True)
        for column in ("measured", "truth"):
            table.add_column(column, justify="right")
        table.add_column("bound")
        for check in checks:
            table.add_row(*_check_row(check))
        results.print(table, "")
    verdict = "[green]every bound holds[/green]" if report.passed else "[red]a bound fails[/red]"
    results.print(verdict)


def _check_row(check: "Check") -> tuple[str, ...]:
    mark = {True: "[green]✓[/green]", False: "[red]✗[/red]", None: "[dim]·[/dim]"}[check.passed]
    truth = "" if check.expected is None else f"{check.expected:.4f}"
    return mark, check.name, f"{check.measured:.4f}", truth, check.bound


def _nothing(_: Summary) -> list[tuple[str, str]]:
    return []


def _images(summary: Summary) -> list[tuple[str, str]]:
    counts = ", ".join(f"{summary[s]} {s}" for s in ("train", "eval") if s in summary)
    skipped = f", {summary['skipped']} skipped (skipped.csv)" if summary["skipped"] else ""
    return [("images", counts + skipped)]


def _train(summary: Summary) -> list[tuple[str, str]]:
    text = f"{summary['features']:,} features"
    if "steps" in summary:
        text += f", {summary['steps']:,} steps, {summary['tokens']:,} tokens"
    return [("SAE", text + _given_sae(summary))]


def _given_sae(summary: Summary) -> str:
    """Whether an SAE that was brought along belongs to the backbone: said before anything else."""
    if "sample_fvu" not in summary:
        return ""
    return (
        f"  {summary['format']}: FVU {_number(summary['sample_fvu'])}, "
        f"L0 {_number(summary['sample_l0'])}, norm ratio {_number(summary['norm_ratio'])}, "
        f"{summary['sample_dead_share']:.0%} silent on {summary['sample_tokens']:,} tokens"
    )


def _outliers(summary: Summary) -> list[tuple[str, str]]:
    text = f"{_number(summary['tau'])}, {summary['share']:.2%} of patch tokens above"
    return [("τ", text), ("", f"[dim]{summary['message']}[/dim]")]


def _evaluate(summary: Summary) -> list[tuple[str, str]]:
    def both(key: str) -> str:
        return f"{_number(summary[f'{key}_all'])} / {_number(summary[f'{key}_outlier'])}"

    return [
        ("FVU all / outlier", both("fvu")),
        ("L0 all / outlier", both("l0")),
        ("cosine all / outlier", both("cosine")),
    ]


def _score(summary: Summary) -> list[tuple[str, str]]:
    counted = f"{summary['pairs']:,} of {summary['features']:,} features"
    return [("pairs", f"{counted} on {summary['images']:,} images, {summary['missed']:,} missed")]


def _partition(summary: Summary) -> list[tuple[str, str]]:
    sizes = f"{summary['low']:,} low, {summary['high']:,} high, {summary['unscored']:,} unscored"
    return [("γ", f"{_number(summary['gamma'])} ({summary['source']}): {sizes}")]


def _instability(summary: Summary) -> list[tuple[str, str]]:
    rows = sorted(summary["shifts"], key=lambda row: _READINGS.index(row["reading"]))
    several = len({row["shift"] for row in rows}) > 1
    return [
        (
            f"D̄ outlier / other, {row['reading']}" + (f", s = {row['shift']}" if several else ""),
            f"{_with_interval(row['out'])} / {_with_interval(row['non'])}"
            + ("" if several else " patches"),
        )
        for row in rows
    ]


def _awcds(summary: Summary) -> list[tuple[str, str]]:
    values = f"{_number(summary['on_outliers'])} / {_number(summary['on_others'])}"
    return [("awCDS outlier / other", values)]


def _probe(summary: Summary) -> list[tuple[str, str]]:
    rows = [
        (f"{task}, {found['metric']}", _variants(found)) for task, found in summary["tasks"].items()
    ]
    if summary["unmatched"]:
        text = ", ".join(f"{group}-CDS" for group in summary["unmatched"])
        rows.append(("", f"[dim]no random features match {text}[/dim]"))
    if summary["diverged"]:
        rows.append(("", f"[dim]{summary['diverged']} heads diverged and are left out[/dim]"))
    return rows


def _zeroshot(summary: Summary) -> list[tuple[str, str]]:
    def of(key: str) -> str:
        return _variants({variant: row[key] for variant, row in summary.items()})

    return [("zero-shot, top1", of("top1")), ("zero-shot, confidence", of("confidence"))]


def _variants(values: Summary) -> str:
    """Write original, high-removed and low-removed, and the mean of controls where there are."""
    random = [v for name, v in values.items() if name.startswith("random-high") and v is not None]
    shown = {
        "original": values.get("original"),
        "high removed": values.get("high-removed"),
        "random instead": sum(random) / len(random) if random else None,
        "low removed": values.get("low-removed"),
    }
    known = (f"{name} {_number(value)}" for name, value in shown.items() if value is not None)
    return ", ".join(known)


def _with_interval(group: Summary) -> str:
    values = [group[key] for key in ("mean", "low", "high")]
    if None in values:
        return _number(values[0])
    mean, low, high = (f"{value:.2f}" for value in values)
    return f"{mean} [{low}, {high}]"


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3g}"


_HEADLINES = {
    "images": _images,
    "train": _train,
    "outliers": _outliers,
    "evaluate": _evaluate,
    "score": _score,
    "partition": _partition,
    "instability": _instability,
    "awcds": _awcds,
    "probe": _probe,
    "zeroshot": _zeroshot,
}
