"""What the command line prints of targets, prices and verdicts: headings and cells."""

from vitscope.paper.planning import Request, plan_runs
from vitscope.paper.pricing import Machine, price_study
from vitscope.paper.reproduction import Reproduction
from vitscope.paper.sources import Sources
from vitscope.paper.studies import paper_study
from vitscope.paper.targets import TARGETS
from vitscope.paper.verdicts import CLAIMS

GIGA = 1e9

Lines = tuple[list[str], list[list[str]]]


def target_lines() -> Lines:
    """Return what each target needs, priced for the paper's data sets."""
    rows: list[list[str]] = []
    for target in TARGETS.values():
        prices = [
            price_study(paper_study(model, (target,), Sources()), target.stages)
            for model in target.models
        ]
        rows.append(
            [
                target.name,
                target.title,
                ", ".join(target.models),
                ", ".join(target.data),
                f"{sum(price.hours() for price in prices):.2f}",
                f"{sum(price.disk for price in prices) / GIGA:.0f}",
            ]
        )
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
        standing = 0.0
        if planned.from_ is not None:  # what it takes over is not done again
            kept = [s for s in planned.stages if s not in _anew(planned.readings)]
            standing = price_study(planned.study, kept, machine).hours()
        hours = price.hours() - standing
        total += hours
        assumed |= set(price.counts.assumed)
        rows.append(
            [
                planned.name,
                f"{price.counts.train:,}",
                f"{price.counts.eval:,}",
                f"{hours:.2f}",
                f"{hours / 8:.2f}",
                f"{price.memory / GIGA:.1f}",
                f"{price.disk / GIGA:.0f}",
            ]
        )
    said = [f"{total:.1f} hours in all. {machine.assumptions()}"]
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


def _anew(readings: object) -> tuple[str, ...]:
    """Return the stages that a run with other readings does itself."""
    assert isinstance(readings, dict)
    keys = set(readings)
    if keys <= {"keep_error", "probe_at", "image_token", "searches"}:
        return ("probe",)
    return ("images", "outliers", "instability")
