"""The reproduction as one self-contained page, and what the command line prints of it."""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from vitscope.errors import VitscopeError
from vitscope.figures.curves import plot_awcds_beside
from vitscope.figures.files import inline_svg
from vitscope.figures.histograms import plot_cds_beside
from vitscope.figures.instability import plot_shifts
from vitscope.figures.numbers import UNDEFINED
from vitscope.figures.scaling import plot_scaling, read_scaling
from vitscope.paper.assumptions import ASSUMPTIONS, readings_label, written_value
from vitscope.paper.claims import CLAIMS, Judgement
from vitscope.paper.comparison import ComparedNumber, Reproduction, TargetTable
from vitscope.paper.findings import Finding, FinishedRun
from vitscope.paper.prices import Machine, price_study
from vitscope.paper.readings import PaperReading
from vitscope.paper.reference import load_reference
from vitscope.paper.runs import Request, plan_runs
from vitscope.paper.studies import Sources, paper_study
from vitscope.paper.targets import TARGETS, families
from vitscope.run import Run
from vitscope.store.atomic import write_text
from vitscope.store.stamp import library_versions

PAGE_FILE = "reproduction.html"

VERDICT_TONES = {"supported": "low", "contradicted": "high", "cannot be told": "muted"}
"""Outcome -> colour; its word is always there too."""

QUANTITY_DIGITS = {
    "dictionary": 0, "low": 0, "high": 0, "unscored": 0, "layer": 0, "tau": 1, "gamma": 3,
    "fvu": 3, "l0": 2, "cosine": 3, "emd": 2, "classification": 4, "segmentation": 4, "depth": 3,
    "activation": 2,
}  # fmt: skip
"""Decimals, by the first part of a quantity's name."""


def write_page(reproduction: Reproduction) -> Path:
    """Write the page into the folder of the runs, and return it."""
    path = reproduction.folder / PAGE_FILE
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
    verdicts, found = reproduction.verdicts, reproduction.found
    rows = [row for table in reproduction.tables for row in table.rows]
    agreements = [row.agrees for row in rows if row.truth is not None]
    by_claim = [(claim, [v for v in verdicts if v.claim == claim.key]) for claim in CLAIMS]
    return environment.get_template("reproduction.html").render(
        reference=load_reference(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=library_versions().get("vitscope", ""),
        runs=[_run(run, reproduction) for run in (*found, *reproduction.others)],
        notes=list(dict.fromkeys(run.study.note for run in found if run.study.note)),
        sections=[_section(table, reproduction) for table in reproduction.tables],
        claims=[(claim, mine) for claim, mine in by_claim if mine],
        counts={o: [verdict.outcome for verdict in verdicts].count(o) for o in Judgement},
        n_numbers=len(rows),
        n_compared=sum(row.comparable and row.paper is not None for row in rows),
        truths={how: agreements.count(how) for how in (True, False, None)},
        readings=list(_readings(reproduction.readings)),
        assumptions=list(_assumptions(found)),
        tones=VERDICT_TONES,
    )


def written(quantity: str, found: Finding) -> str:
    """Write a number with its interval."""
    if not math.isfinite(found.value):
        return UNDEFINED
    digits = QUANTITY_DIGITS.get(quantity.partition(".")[0], 3)
    text = f"{found.value:,.{digits}f}"
    if not found.has_interval:
        return text
    return f"{text} [{found.low:,.{digits}f}, {found.high:,.{digits}f}]"


def _section(table: TargetTable, reproduction: Reproduction) -> dict[str, Any]:
    name, rows = table.target.name, table.rows
    kinds = {"the paper": [row.paper for row in rows], "the truth": [row.truth for row in rows]}
    known = [kind for kind, values in kinds.items() if any(v is not None for v in values)]
    claims = {claim.key for claim in CLAIMS if name in claim.targets}
    runs = [run for run in reproduction.found if run.model in table.limits]
    return {
        "name": name,
        "title": table.target.title,
        "expected": " or ".join(known) or "the paper",
        "rows": [(row, *_cells(row)) for row in rows],
        "drawings": draw(name, runs),
        "note": _gallery_note(name, runs),
        "verdicts": [
            verdict
            for verdict in reproduction.verdicts
            if verdict.claim in claims and set(verdict.models) & set(table.limits)
        ],
        "limits": [(model, limits) for model, limits in table.limits.items() if limits],
    }


def _cells(row: ComparedNumber) -> tuple[str, str, str, str]:
    """Return what is expected, ours, the difference, and whether our interval holds it."""
    expected, difference, agrees = "no number", UNDEFINED, UNDEFINED
    if row.paper is not None:
        expected = row.paper.printed
    elif row.truth is not None:
        expected = written(row.quantity, row.truth)
    if math.isfinite(row.difference):
        digits = QUANTITY_DIGITS.get(row.quantity.partition(".")[0], 3)
        difference = f"{row.difference:+,.{digits}f}".replace("-", "−")
    if row.agrees is not None and (row.comparable or row.truth is not None):
        agrees = "inside" if row.agrees else "outside"
    elif row.paper is not None and not row.comparable:
        agrees = "not comparable"
    return expected, written(row.quantity, row.ours), difference, agrees


def _gallery_note(name: str, runs: Sequence[FinishedRun]) -> str:
    """Say what CDS the features of a gallery have, in the paper and here."""
    shown = load_reference().shown.get(name)
    if shown is None:
        return ""
    group = "low" if name == "figure9" else "high"
    text = (
        f"The paper shows {len(shown)} {group}-CDS features with CDS {min(shown):g} to "
        f"{max(shown):g}. Their indices mean nothing in another dictionary."
    )
    for run in runs:
        if not run.run.has("partition"):
            continue
        cds = run.run.partition.cds[run.run.partition.group(group)]
        cds = cds[np.isfinite(cds)]
        if cds.size:
            text += (
                f" {run.model}: {cds.size:,} such features, CDS {cds.min():.3f} to {cds.max():.3f},"
                f" median {np.median(cds):.3f}."
            )
    return text + " Whether they look alike is for a reader: each run's report has its gallery."


def _run(run: FinishedRun, reproduction: Reproduction) -> dict[str, str]:
    folder = run.run.root.name
    has_report = (
        run in reproduction.found and run.run.directory.report.exists()
    )  # others took theirs over
    return {
        "model": run.model,
        "readings": readings_label(run.readings) or "default",
        "targets": ", ".join(target.name for target in run.targets),
        "images": str(run.study.images.eval or run.study.images.train),
        "folder": folder,
        "report": f"{folder}/report.html" if has_report else "",
    }


def _readings(
    readings: Sequence[PaperReading],
) -> Iterator[tuple[str, str, list[str], list[tuple[str, list[tuple[str, bool, bool]]]]]]:
    """Yield (model, title, quantities, rows): a row per reading, a cell per quantity."""

    def key(row: PaperReading) -> tuple[str, str, str]:
        return (row.model, row.target, row.assumption)

    for (model, target, assumption), group in groupby(sorted(readings, key=key), key):
        some = list(group)
        quantities = list(dict.fromkeys(row.quantity for row in some))
        at = {(row.reading, row.quantity): row for row in some}
        papers = {row.quantity: row.paper.printed for row in some if row.paper is not None}
        rows = [
            (name, [_reading_cell(at.get((name, quantity))) for quantity in quantities])
            for name in dict.fromkeys(row.reading for row in some)
        ]
        if papers:
            rows.append(("the paper", [(papers.get(q, ""), False, False) for q in quantities]))
        known = ASSUMPTIONS.get(assumption)
        yield model, f"{target}: {known.question if known else assumption}", quantities, rows


def _reading_cell(row: PaperReading | None) -> tuple[str, bool, bool]:
    """Return the number, whether it is nearest to the paper's, whether it was taken."""
    if row is None:
        return UNDEFINED, False, False
    return written(row.quantity, row.ours), row.nearest, row.chosen


def _assumptions(found: Sequence[FinishedRun]) -> Iterator[tuple[str, str, str]]:
    """Yield (key, what is open, what was taken and by which models where they differ)."""
    for key, one in ASSUMPTIONS.items():
        takers: dict[str, list[str]] = {}
        for run in found:
            value = one.value_in(run.study)
            takers.setdefault("found" if value is None else written_value(value), []).append(
                run.model
            )
        several = len(takers) > 1
        taken = (v + (f" ({', '.join(models)})" if several else "") for v, models in takers.items())
        yield key, one.question, "; ".join(taken)


def draw(name: str, runs: Sequence[FinishedRun]) -> list[tuple[Markup, str]]:
    """Return the figures of a target with their captions; none where nothing is to be drawn."""
    stage = {"table4": "partition", "figure6": "partition", "figure7": "awcds",
             "table9": "instability", "figure8": "probe"}.get(name)  # fmt: skip
    runs = [run for run in runs if stage is not None and run.run.has(stage)]
    drawn: list[tuple[Figure, str]] = []
    if stage == "partition" and runs:
        scores = [(run.model, run.run.partition.cds) for run in runs]
        drawn.append((plot_cds_beside(scores), "Histogram of CDS, each model's scored features"))
    elif stage == "awcds" and runs:
        said = "Mean awCDS over percentiles of the patch-token norm"
        spectra = [(run.model, run.run.awcds.spectrum) for run in runs]
        drawn.append((plot_awcds_beside(spectra), said))
    elif stage == "instability":
        for run in runs:
            said = f"{run.model}: mean EMD over the shift, under three readings"
            drawn.append((plot_shifts(run.run.instability), said))
    elif stage == "probe":
        drawn += _of_sizes({run.model: run.run for run in runs})
    return [
        # our own SVG: its texts are numbers, fixed words, and names that its writer escapes
        (Markup(inline_svg(figure, f"{name}-{i}", caption)), caption)
        for i, (figure, caption) in enumerate(drawn)
    ]


def _of_sizes(by_model: dict[str, Run]) -> Iterator[tuple[Figure, str]]:
    for family in families(by_model):
        try:
            mine = [by_model[model] for model in family if model in by_model]
            scaling = read_scaling(mine, "classification")
        except VitscopeError:
            continue  # one size alone has no course, and other images do not compare
        said = (f"Top-1 over the sizes of {family[0]} to {family[-1]}", *scaling.notes)
        yield plot_scaling(scaling), "; ".join(said)


Lines = tuple[list[str], list[list[str]]]
"""Headings, and rows of cells, as the command line prints them."""


def target_lines() -> Lines:
    """Return what each target needs, priced for the paper's data sets."""
    rows: list[list[str]] = []
    for target in TARGETS.values():
        prices = [
            price_study(paper_study(model, (target,), Sources()), target.stages)
            for model in target.models
        ]
        hours = f"{sum(price.hours() for price in prices):.2f}"
        disk = f"{sum(price.disk for price in prices) / 1e9:.0f}"
        models, data = ", ".join(target.models), ", ".join(target.data)
        rows.append([target.name, target.title, models, data, hours, disk])
    return ["target", "what", "weights", "data", "GPU hours", "disk GB"], rows


def price_lines(request: Request, machine: Machine) -> tuple[list[str], list[list[str]], list[str]]:
    """Return the price of every run of a request, and what it rests on.

    Raises:
        VitscopeError: as for running it.
    """
    rows: list[list[str]] = []
    assumed: set[str] = set()
    total = 0.0
    for planned in plan_runs(request):
        price = price_study(planned.study, planned.stages, machine)
        hours, counts = price.hours(), price.counts
        if planned.from_ is not None and "probe" in planned.stages:  # all else is taken over
            hours = price_study(planned.study, ("probe",), machine, counts).hours()
        total += hours
        assumed |= set(counts.assumed)
        images = (f"{counts.train:,}", f"{counts.eval:,}")
        bytes_ = (f"{price.memory / 1e9:.1f}", f"{price.disk / 1e9:.0f}")
        rows.append([planned.name, *images, f"{hours:.2f}", f"{hours / 8:.2f}", *bytes_])
    said = [f"{total:.1f} hours in all. {machine.describe()}"]
    if assumed:
        said.append(f"Not at hand, so that published sizes stand in: {', '.join(sorted(assumed))}.")
    headings = ["run", "trained on", "scored", "GPU h", "on 8", "GB", "disk GB"]
    return headings, rows, said


def verdict_lines(found: Reproduction) -> Lines:
    """Return the verdicts."""
    texts = {claim.key: claim.text for claim in CLAIMS}
    rows = [
        [verdict.outcome.value, ", ".join(verdict.models), texts[verdict.claim], verdict.why]
        for verdict in found.verdicts
    ]
    return ["verdict", "models", "claim", "why"], rows
