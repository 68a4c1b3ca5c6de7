"""Progress of long work: a bar with rate and ETA on a terminal, plain lines off it."""

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

PLAIN_INTERVAL_S = 10.0
"""Off a terminal, a line of progress is written at most this often."""

_silent = False


def silence() -> None:
    """Show no progress in this process from here on: another of its job shows the job's."""
    global _silent  # noqa: PLW0603
    _silent = True


class _RateColumn(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{_short(speed)} {self._unit}/s", style="cyan")


@dataclass
class Tracker:
    """What the work calls: :meth:`advance` after each piece, :meth:`note` for live figures."""

    label: str
    total: int
    unit: str
    console: Console
    bar: Progress | None = None
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    _last_line: float = field(default_factory=time.monotonic)
    _first_done: int = 0
    _printed: int | None = None
    _note: str = ""

    def advance(self, n: int = 1) -> None:
        """Count ``n`` more units as done."""
        self.done += n
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], advance=n)
        elif time.monotonic() - self._last_line >= PLAIN_INTERVAL_S:
            self._print_line()

    def skip(self, n: int) -> None:
        """Count ``n`` units done by an earlier process: they do not enter the rate."""
        self.done += n
        self._first_done += n
        if self.bar is not None:
            # a plain update would enter the bar's own rate and ETA
            self.bar.reset(self.bar.task_ids[0], completed=self.done)

    def note(self, text: str) -> None:
        """Show ``text`` beside the bar (loss, explained variance, …)."""
        self._note = text
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], note=text)

    def finish(self) -> None:
        """Write the last line of work that has written lines: a log must not end before it did."""
        if self.bar is None and self._printed not in (None, self.done):
            self._print_line()

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        elapsed = max(time.monotonic() - self.started, 1e-9)
        return (self.done - self._first_done) / elapsed

    def _print_line(self) -> None:
        self._last_line = time.monotonic()
        self._printed = self.done
        self.console.print(self._line(), markup=False)  # "[" in a label is no style

    def _line(self) -> str:
        left = (self.total - self.done) / max(self.rate, 1e-9)
        text = f"{self.label}: {self.done}/{self.total} {self.unit}, {_short(self.rate)}/s"
        text += f", {left:.0f} s left" if self.done < self.total else ""
        return text + (f", {self._note}" if self._note else "")


@contextmanager
def track(label: str, total: int, unit: str) -> Generator[Tracker]:
    """Track ``total`` units of work; progress goes to standard error, results to standard out."""
    console = Console(file=sys.stderr, highlight=False, soft_wrap=True, quiet=_silent)
    if _silent or not console.is_terminal:
        tracker = Tracker(label, total, unit, console)
        yield tracker
        tracker.finish()
        return
    bar = Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        _RateColumn(unit),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", style="dim"),
        console=console,
        transient=True,
    )
    with bar:
        bar.add_task(label, total=total, note="")
        yield Tracker(label, total, unit, console, bar)


def say(text: str) -> None:
    """Write a line on standard error, where progress goes."""
    console = Console(file=sys.stderr, highlight=False, soft_wrap=True, quiet=_silent)
    console.print(text, markup=False, style="dim")


def _short(rate: float) -> str:
    for limit, suffix in ((1e6, "M"), (1e3, "k")):
        if rate >= limit:
            return f"{rate / limit:.1f}{suffix}"
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"
