"""The tables of the section on removal: a line a variant, a cell a figure with its interval."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from vitscope.figures.numbers import decimal, with_interval
from vitscope.figures.removal import (
    METRICS,
    RemovalLine,
    probe_change,
    probe_value,
    removal_lines,
    zero_shot_value,
)
from vitscope.intervals import MeanInterval
from vitscope.probes.results import TaskResult, ZeroShotSummary
from vitscope.stages.probe import ProbesResult
from vitscope.stages.zeroshot import ZeroShotResult

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


CellText = tuple[str, str]
"""A figure with its interval, and its difference from the original in small type."""


@dataclass(frozen=True)
class RemovalTable:
    """Headings with what stands under each in small type, and a row a line."""

    headings: tuple[tuple[str, str], ...]
    rows: tuple[tuple[RemovalLine, tuple[CellText, ...]], ...]


def probe_table(found: ProbesResult) -> RemovalTable:
    """Return what probes read off the tokens of every line: a column a task."""
    arrows = {True: "↑", False: "↓"}
    headings = [
        (t.task, f"{METRICS[t.metric][0]} {arrows[t.higher_is_better]}") for t in found.tasks
    ]
    rows = [
        (line, tuple(_probe_cell(task, line) for task in found.tasks))
        for line in removal_lines(found.removed)
    ]
    return RemovalTable(tuple(headings), tuple(rows))


def task_sizes(found: ProbesResult) -> str:
    """Say how many images every task has."""
    return "; ".join(
        f"{t.task}: {t.n_train:,} training and {t.n_validation:,} validation images"
        for t in found.tasks
    )


def diverged_heads(found: ProbesResult) -> str:
    """Say how many heads of every task are left out; nothing where none is."""
    counts = {task.task: sum(len(one.diverged) for one in task.variants) for task in found.tasks}
    return ", ".join(f"{n} of {task}" for task, n in counts.items() if n)


def _probe_cell(task: TaskResult, line: RemovalLine) -> CellText:
    _, digits = METRICS[task.metric]
    text, change = _interval(probe_value(task, line), digits), probe_change(task, line)
    if not line.of or not math.isfinite(change.mean):
        return text, ""
    ends = [_signed(end, digits) for end in (change.low, change.high) if math.isfinite(end)]
    interval = " [{}, {}]".format(*ends) if len(ends) == 2 else ""
    return text, _signed(change.mean, digits) + interval


def zero_shot_table(found: ZeroShotResult) -> RemovalTable:
    """Return what text predicts from the tokens of every line: a column a figure."""
    lines = removal_lines(found.removed)
    rows = [
        (line, tuple(_text_cell(found, line, lines[0], *column[1:]) for column in TEXT_COLUMNS))
        for line in lines
    ]
    return RemovalTable(tuple((name, "") for name, *_ in TEXT_COLUMNS), tuple(rows))


def _text_cell(
    found: ZeroShotResult,
    line: RemovalLine,
    original: RemovalLine,
    digits: int,
    read: Callable[[ZeroShotSummary], float],
) -> CellText:
    value = zero_shot_value(found, line, read)
    if digits == COUNT:
        return decimal(value.mean, 0 if len(line.variants) == 1 else 1), ""
    change = value.mean - zero_shot_value(found, original, read).mean
    is_told = line is not original and math.isfinite(change)
    return _interval(value, digits), _signed(change, digits) if is_told else ""


def _interval(value: MeanInterval, digits: int) -> str:
    return with_interval(value.mean, value.low, value.high, digits)


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−") if round(value, digits) else "±0"
