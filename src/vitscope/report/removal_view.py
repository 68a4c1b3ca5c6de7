"""The cells of the section on removal, as the page writes them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from vitscope.intervals import MeanInterval
from vitscope.probes.zero_shot import ZeroShotSummary
from vitscope.report.numbers import decimal, with_interval
from vitscope.report.removal import (
    Line,
    RemovalFigures,
    TaskFigures,
    ZeroShotFigures,
    change_of_task,
    lines,
    of_task,
    of_zero_shot,
)

METRICS = {
    "top1": ("top-1 accuracy", 3),
    "miou": ("mIoU", 3),
    "rmse": ("RMSE in metres", 3),
}
"""Metric -> its name, and decimals."""

COUNT = 0
"""Decimals of a number of images: it has no interval, and its difference is itself."""

TEXT_COLUMNS: tuple[tuple[str, int, Callable[[ZeroShotSummary], float]], ...] = (
    ("top-1", 3, lambda row: row.top1),
    ("top-5", 3, lambda row: row.top5),
    ("mean confidence", 3, lambda row: row.confidence),
    ("calibration error", 3, lambda row: row.calibration.expected_error),
    ("flips", COUNT, lambda row: row.flips),
    ("lost", COUNT, lambda row: row.flips_lost),
    ("won", COUNT, lambda row: row.flips_won),
)
"""Column -> decimals, and where it is read."""


@dataclass(frozen=True)
class Cell:
    """A figure with its interval, and its difference from the original in small type."""

    text: str
    change: str = ""


@dataclass(frozen=True)
class Row:
    """A line and its cells."""

    line: Line
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Headings with what stands under each in small type, and the rows.

    Attributes:
        headings: of the figures.
        rows: one per line.
        shows_shares: whether what was removed is said too: in the first table alone.
    """

    headings: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    shows_shares: bool


@dataclass(frozen=True)
class RemovalView:
    """Both tables; None where nothing of the kind has run.

    Attributes:
        probes: a column per task.
        zero_shot: a column per figure.
        n_images: predicted by text.
        n_classes: to choose from.
        diverged: heads left out, in words; nothing where there are none.
        sizes: images of every task, in words.
    """

    probes: Table | None
    zero_shot: Table | None
    n_images: int
    n_classes: int
    diverged: str
    sizes: str


def removal_view(figures: RemovalFigures | None) -> RemovalView | None:
    """Return what the section writes; None where neither stage has run."""
    if figures is None:
        return None
    every, by_text = lines(figures), figures.zero_shot
    diverged = [f"{t.diverged} of {t.task}" for t in figures.tasks if t.diverged]
    return RemovalView(
        probes=_probes(figures.tasks, every) if figures.tasks else None,
        zero_shot=None
        if by_text is None
        else _zero_shot(by_text, every, shows_shares=not figures.tasks),
        n_images=0 if by_text is None else by_text.n_images,
        n_classes=0 if by_text is None else by_text.n_classes,
        diverged=", ".join(diverged),
        sizes="; ".join(
            f"{t.task}: {t.n_train:,} training and {t.n_validation:,} validation images"
            for t in figures.tasks
        ),
    )


def _probes(tasks: tuple[TaskFigures, ...], every: tuple[Line, ...]) -> Table:
    headings: list[tuple[str, str]] = []
    for task in tasks:
        name, _ = METRICS[task.metric]
        arrow = "↑" if task.higher_is_better else "↓"
        headings.append((task.task, f"{name} {arrow}"))
    rows = [Row(line, tuple(_task_cell(task, line, every[0]) for task in tasks)) for line in every]
    return Table(tuple(headings), tuple(rows), shows_shares=True)


def _task_cell(task: TaskFigures, line: Line, first: Line) -> Cell:
    _, digits = METRICS[task.metric]
    text = _interval(of_task(task, line), digits)
    return Cell(text) if line is first else Cell(text, _change(task, line, first, digits))


def _change(task: TaskFigures, line: Line, first: Line, digits: int) -> str:
    change = change_of_task(task, line, first)
    if not math.isfinite(change.mean):
        return ""
    ends = (change.low, change.high)
    interval = ""
    if all(map(math.isfinite, ends)):
        interval = " [{}, {}]".format(*(_signed(end, digits) for end in ends))
    return _signed(change.mean, digits) + interval


def _zero_shot(figures: ZeroShotFigures, every: tuple[Line, ...], *, shows_shares: bool) -> Table:
    original = [of_zero_shot(figures, every[0], read) for *_, read in TEXT_COLUMNS]
    rows: list[Row] = []
    for line in every:
        cells: list[Cell] = []
        for (_, digits, read), first in zip(TEXT_COLUMNS, original, strict=True):
            value = of_zero_shot(figures, line, read)
            if digits == COUNT:
                one = len(line.variants) == 1
                cells.append(Cell(decimal(value.mean, 0 if one else 1)))
                continue
            change = value.mean - first.mean
            is_told = line is not every[0] and math.isfinite(change)
            cells.append(Cell(_interval(value, digits), _signed(change, digits) if is_told else ""))
        rows.append(Row(line, tuple(cells)))
    headings = tuple((name, "") for name, *_ in TEXT_COLUMNS)
    return Table(headings, tuple(rows), shows_shares=shows_shares)


def _interval(value: MeanInterval, digits: int) -> str:
    return with_interval(value.mean, value.low, value.high, digits)


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−") if round(value, digits) else "±0"
