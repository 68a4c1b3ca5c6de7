"""What a person reads on the terminal: a line per stage, a table at the end."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:  # they bring torch and timm, which `--help` should not wait for
    from vitscope.figures.catalogue import FigureOutcome
    from vitscope.sae.formats.hub import Push
    from vitscope.selfcheck.checks import Check
    from vitscope.selfcheck.selfcheck import SelfcheckReport
    from vitscope.stages.stage import Outcome
    from vitscope.study import Study

errors = Console(stderr=True, highlight=False, soft_wrap=True)
results = Console(highlight=False)


def print_outcome(outcome: "Outcome") -> None:
    """Say that a stage has ended, on standard error."""
    name = outcome.stage.name
    if outcome.skipped:
        errors.print(f"[dim]· {name:<12} unchanged[/dim]")
    else:
        remark = outcome.stage.remark(outcome.result)
        errors.print(f"[green]✓[/green] {name:<12} {outcome.stamp.seconds:7.1f} s{remark}")


def print_title(title: str) -> None:
    """Say, on standard error, what the following stages are for."""
    errors.print(f"[bold]▸ {escape(title)}[/bold]")


def print_run(outcomes: Mapping[str, "Outcome"], out: Path) -> None:
    """Print the headline numbers of the stages that ran, and where the results lie."""
    table = Table(title=None, show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for outcome in outcomes.values():
        for label, value in outcome.stage.headline(outcome.result):
            table.add_row(label, value)
    results.print(table)
    label, where = "run", out
    if "report" in outcomes:
        label, where = "report", out / outcomes["report"].result.page.name
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
