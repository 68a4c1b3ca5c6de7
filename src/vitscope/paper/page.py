"""The reproduction as one self-contained page, in the look of a run's report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from vitscope.paper.assumptions import ASSUMPTIONS, label
from vitscope.paper.claims import Outcome, Verdict
from vitscope.paper.comparison import Row, Table
from vitscope.paper.drawings import Drawing, draw
from vitscope.paper.limits import Limit
from vitscope.paper.measured import Measured
from vitscope.paper.readings import Reading
from vitscope.paper.reproduction import Reproduction
from vitscope.paper.verdicts import CLAIMS
from vitscope.report.numbers import UNDEFINED
from vitscope.store.atomic import write_text
from vitscope.store.stage import library_versions
from vitscope.store.tables import read_table

PAGE = "reproduction.html"

TONES = {Outcome.SUPPORTED: "low", Outcome.CONTRADICTED: "high", Outcome.OPEN: "muted"}
"""Outcome -> colour; its word is always there too."""

DIGITS = {
    "dictionary": 0, "low": 0, "high": 0, "unscored": 0, "layer": 0, "tau": 1, "gamma": 3,
    "fvu": 3, "l0": 2, "cosine": 3, "emd": 2, "classification": 4, "segmentation": 4, "depth": 3,
    "activation": 2,
}  # fmt: skip
"""Decimals, by the first part of a quantity's name."""


@dataclass(frozen=True)
class Cell:
    """A row as the page writes it."""

    model: str
    heading: str
    expected: str
    ours: str
    difference: str
    agrees: str
    is_new: bool


@dataclass(frozen=True)
class Section:
    """A target on the page."""

    name: str
    title: str
    expected: str
    rows: tuple[Cell, ...]
    drawings: tuple[Drawing, ...]
    note: str
    verdicts: tuple[Verdict, ...]
    limits: tuple[tuple[str, tuple[Limit, ...]], ...]


def write_page(reproduction: Reproduction) -> Path:
    """Write the page into the folder of the runs, and return it."""
    path = reproduction.folder / PAGE
    write_text(path, render_page(reproduction))
    return path


def render_page(reproduction: Reproduction) -> str:
    """Return the page."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("vitscope.paper"), PackageLoader("vitscope.report")]),
        autoescape=True,  # paths and names are a stranger's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    outcomes = [verdict.outcome for verdict in reproduction.verdicts]
    rows = [row for table in reproduction.tables for row in table.rows]
    return environment.get_template("reproduction.html").render(
        reference=reproduction.reference,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=library_versions().get("vitscope", ""),
        runs=_runs(reproduction),
        notes=_notes(reproduction),
        sections=[_section(table, reproduction) for table in reproduction.tables],
        claims=_claims(reproduction),
        counts={outcome: outcomes.count(outcome) for outcome in Outcome},
        n_numbers=len(rows),
        n_compared=sum(row.comparable and row.paper is not None for row in rows),
        n_truths=sum(row.truth is not None for row in rows),
        n_true=sum(row.truth is not None and bool(row.agrees) for row in rows),
        n_undecided=sum(row.truth is not None and row.agrees is None for row in rows),
        readings=_readings(reproduction),
        assumptions=_assumptions(reproduction),
        tones=TONES,
    )


def written(quantity: str, found: Measured) -> str:
    """Write a number with its interval."""
    if not math.isfinite(found.value):
        return UNDEFINED
    digits = DIGITS.get(quantity.partition(".")[0], 3)
    text = f"{found.value:,.{digits}f}"
    if not found.has_interval:
        return text
    return f"{text} [{found.low:,.{digits}f}, {found.high:,.{digits}f}]"


def _section(table: Table, reproduction: Reproduction) -> Section:
    name = table.target.name
    cells: list[Cell] = []
    last = ""
    for row in table.rows:
        cells.append(_cell(row, is_new=row.model != last))
        last = row.model
    claims = {claim.key for claim in CLAIMS if name in claim.targets}
    served = set(table.limits)
    return Section(
        name=name,
        title=table.target.title,
        expected=_expected(table.rows),
        rows=tuple(cells),
        drawings=draw(table, reproduction.found),
        note=_note(table, reproduction),
        verdicts=tuple(
            v for v in reproduction.verdicts if v.claim in claims and set(v.models) & served
        ),
        limits=tuple((model, limits) for model, limits in table.limits.items() if limits),
    )


def _note(table: Table, reproduction: Reproduction) -> str:
    """Say what CDS the features of a gallery have, in the paper and here."""
    shown = next((s for s in reproduction.reference.shown if s.target == table.target.name), None)
    if shown is None:
        return ""
    group = "low" if table.target.name == "figure9" else "high"
    text = (
        f"The paper shows {len(shown.cds)} {group}-CDS features with CDS {min(shown.cds):g} to "
        f"{max(shown.cds):g}. Their indices mean nothing in another dictionary."
    )
    for one in reproduction.found:
        if one.run.model in table.limits and one.run.has("partition"):
            features = read_table(one.run.run.features)
            cds = features["cds"][features["group"] == group]
            cds = cds[np.isfinite(cds)]
            if cds.size:
                text += (
                    f" {one.run.model}: {cds.size:,} such features, CDS {cds.min():.3f} to "
                    f"{cds.max():.3f}, median {np.median(cds):.3f}."
                )
    return text + " Whether they look alike is for a reader: each run's report has its gallery."


def _expected(rows: Sequence[Row]) -> str:
    kinds = ["the paper"] if any(row.paper is not None for row in rows) else []
    kinds += ["the truth"] if any(row.truth is not None for row in rows) else []
    return " or ".join(kinds) or "the paper"


def _cell(row: Row, *, is_new: bool) -> Cell:
    quantity = row.quantity
    expected, difference, agrees = "no number", UNDEFINED, UNDEFINED
    if row.paper is not None:
        expected = f"{row.paper.value:,.{row.paper.digits}f}"
    elif row.truth is not None:
        expected = written(quantity, row.truth)
    if math.isfinite(row.difference):
        digits = DIGITS.get(quantity.partition(".")[0], 3)
        difference = f"{row.difference:+,.{digits}f}".replace("-", "−")
    if row.agrees is not None and (row.comparable or row.truth is not None):
        agrees = "inside" if row.agrees else "outside"
    elif row.paper is not None and not row.comparable:
        agrees = "not comparable"
    ours = written(quantity, row.ours)
    return Cell(row.model, row.heading, expected, ours, difference, agrees, is_new)


def _claims(reproduction: Reproduction) -> list[tuple[Any, tuple[Verdict, ...]]]:
    rows = [
        (claim, tuple(v for v in reproduction.verdicts if v.claim == claim.key)) for claim in CLAIMS
    ]
    return [(claim, verdicts) for claim, verdicts in rows if verdicts]


def _runs(reproduction: Reproduction) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for one in (*reproduction.found, *reproduction.others):
        run = one.run
        name = run.run.root.name
        own = one in reproduction.found  # the others took theirs over
        report = f"{name}/report.html" if own and run.run.report.exists() else ""
        rows.append(
            {
                "model": run.model,
                "readings": label(run.readings) or "default",
                "targets": ", ".join(target.name for target in run.targets),
                "images": str(run.study.images.eval or run.study.images.train),
                "folder": name,
                "report": report,
            }
        )
    return rows


def _notes(reproduction: Reproduction) -> list[str]:
    notes = (one.run.study.note for one in reproduction.found)
    return list(dict.fromkeys(note for note in notes if note))


def _readings(
    reproduction: Reproduction,
) -> list[tuple[str, str, list[str], list[dict[str, Any]]]]:
    """Return (model, assumption, quantities, rows) with a column per quantity."""

    def key(row: Reading) -> tuple[str, str, str]:
        return (row.model, row.target, row.assumption)

    found: list[tuple[str, str, list[str], list[dict[str, Any]]]] = []
    for (model, target, assumption), group in groupby(sorted(reproduction.readings, key=key), key):
        some = list(group)
        quantities = list(dict.fromkeys(row.quantity for row in some))
        names = list(dict.fromkeys(row.reading for row in some))
        by_place = {(row.reading, row.quantity): row for row in some}
        rows: list[dict[str, Any]] = []
        for name in names:
            cells = [by_place.get((name, quantity)) for quantity in quantities]
            rows.append({"name": name, "cells": [_read(cell) for cell in cells]})
        papers = [_printed(quantity, some) for quantity in quantities]
        if any(papers):
            rows.append({"name": "the paper", "cells": [(p, False, False) for p in papers]})
        title = (
            f"{target}: {ASSUMPTIONS[assumption].question}"
            if assumption in ASSUMPTIONS
            else (f"{target}: {assumption}")
        )
        found.append((model, title, quantities, rows))
    return found


def _read(cell: Reading | None) -> tuple[str, bool, bool]:
    if cell is None:
        return UNDEFINED, False, False
    return written(cell.quantity, cell.ours), cell.nearest, cell.chosen


def _printed(quantity: str, rows: Sequence[Reading]) -> str:
    paper = next((row.paper for row in rows if row.quantity == quantity and row.paper), None)
    return "" if paper is None else f"{paper.value:,.{paper.digits}f}"


def _assumptions(reproduction: Reproduction) -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    for one in ASSUMPTIONS.values():
        taken = {found.run.model: one.value_in(found.run.study) for found in reproduction.found}
        values = list(dict.fromkeys(taken.values()))
        text = "; ".join(
            ("found" if value is None else str(value).lower())
            + ("" if len(values) == 1 else f" ({', '.join(m for m in taken if taken[m] == value)})")
            for value in values
        )
        rows.append((one.key, one.question, text))
    return rows
