"""A reproduction as a whole: every run below a folder, compared, judged and read."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vitscope.errors import ArtifactError
from vitscope.paper.claims import Found, Verdict
from vitscope.paper.comparison import Table, compare
from vitscope.paper.findings import read_findings
from vitscope.paper.limits import Limit, limits_of
from vitscope.paper.readings import Reading, list_readings
from vitscope.paper.reference import Reference, load_reference
from vitscope.paper.runs import find_runs
from vitscope.paper.targets import TARGETS
from vitscope.paper.truths import truths_of
from vitscope.paper.verdicts import judge
from vitscope.store.atomic import write_json

NUMBERS = "numbers.json"
"""Everything the page shows, for a program to read."""


@dataclass(frozen=True)
class Reproduction:
    """What all runs below a folder say.

    Attributes:
        folder: where they lie.
        found: the runs that tables show: one per model, without other readings where there is one.
        others: the runs that show other readings.
        tables: targets with a run, in the paper's order.
        verdicts: on every claim that a run can be asked about.
        readings: the numbers that hang on an assumption.
        limits: what each model's run cannot support.
        reference: the paper's numbers.
    """

    folder: Path
    found: tuple[Found, ...]
    others: tuple[Found, ...]
    tables: tuple[Table, ...]
    verdicts: tuple[Verdict, ...]
    readings: tuple[Reading, ...]
    limits: dict[str, tuple[Limit, ...]]
    reference: Reference


def gather(folder: Path) -> Reproduction:
    """Read every run below ``folder``.

    Raises:
        ArtifactError: there is none, or a file of one is damaged.
    """
    every = [Found(run, read_findings(run.run, run.study)) for run in find_runs(folder)]
    if not every:
        raise ArtifactError(f"{folder} holds no run of a reproduction")
    reference = load_reference()
    shown = _shown(every)
    others = tuple(one for one in every if one not in shown)
    truths = {one.run.model: truths_of(one.run) for one in shown}
    pairs = [(one.run, one.numbers) for one in shown]
    tables = [compare(target, pairs, reference, truths) for target in TARGETS.values()]
    return Reproduction(
        folder=folder,
        found=shown,
        others=others,
        tables=tuple(table for table in tables if table.limits),
        verdicts=judge(shown),
        readings=list_readings(shown, others, reference),
        limits={one.run.model: limits_of(one.run) for one in shown},
        reference=reference,
    )


def write_numbers(reproduction: Reproduction) -> Path:
    """Write every comparison, verdict and reading as JSON, and return the file."""
    path = reproduction.folder / NUMBERS
    write_json(path, to_values(reproduction))
    return path


def to_values(reproduction: Reproduction) -> dict[str, Any]:
    """Return comparisons, verdicts and readings as plain values."""
    return {
        "numbers": [
            {
                "target": table.target.name,
                **asdict(row),
                "difference": row.difference,
                "interval_holds_it": row.agrees,
            }
            for table in reproduction.tables
            for row in table.rows
        ],
        "verdicts": [asdict(verdict) for verdict in reproduction.verdicts],
        "readings": [asdict(reading) for reading in reproduction.readings],
        "limits": {
            model: [limit.text for limit in limits] for model, limits in reproduction.limits.items()
        },
    }


def _shown(every: Sequence[Found]) -> tuple[Found, ...]:
    """Return one run per model: that with the fewest other readings, the first of equals."""
    best: dict[str, Found] = {}
    for one in every:
        known = best.get(one.run.model)
        if known is None or len(one.run.readings) < len(known.run.readings):
            best[one.run.model] = one
    return tuple(best.values())
