"""The figures of a target on the page, from the runs that serve it."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure

from vitscope.errors import VitscopeError
from vitscope.figures.beside import plot_awcds_beside, plot_cds_beside
from vitscope.figures.shifts import plot_shifts
from vitscope.figures.svg import inline_svg
from vitscope.paper.claims import Found
from vitscope.paper.comparison import Table
from vitscope.paper.targets import families
from vitscope.probes.settings import Task
from vitscope.scope.instability_summary import ReadingInstability
from vitscope.stages.instability_table import read_instability
from vitscope.stages.run_tables import read_spectrum
from vitscope.stages.scaling import draw_scaling, read_scaling
from vitscope.store.tables import read_table

CLASSIFICATION: Task = "classification"


@dataclass(frozen=True)
class Drawing:
    """A figure with what is said under it."""

    svg: Markup
    caption: str


def draw(table: Table, found: Sequence[Found]) -> tuple[Drawing, ...]:
    """Return the figures of a target; none where its runs leave nothing to draw."""
    name = table.target.name
    runs = [one for one in found if one.run.model in table.limits]
    drawn: list[tuple[Figure, str]] = []
    if name in ("table4", "figure6"):
        drawn += _of_scores([one for one in runs if one.run.has("partition")])
    elif name == "figure7":
        drawn += _of_norms([one for one in runs if one.run.has("awcds")])
    elif name == "table9":
        drawn += [_of_shifts(one) for one in runs if one.run.has("instability")]
    elif name == "figure8":
        drawn += _of_sizes([one for one in runs if one.run.has("probe")])
    return tuple(
        # our own SVG: its texts are numbers, fixed words, and names that its writer escapes
        Drawing(Markup(inline_svg(figure, f"{name}-{i}", caption)), caption)
        for i, (figure, caption) in enumerate(drawn)
    )


def _of_scores(runs: Sequence[Found]) -> list[tuple[Figure, str]]:
    if not runs:
        return []
    scores = [(one.run.model, read_table(one.run.run.features)["cds"]) for one in runs]
    return [(plot_cds_beside(scores), "Histogram of CDS, each model's scored features")]


def _of_norms(runs: Sequence[Found]) -> list[tuple[Figure, str]]:
    if not runs:
        return []
    spectra = [(one.run.model, read_spectrum(one.run.run)) for one in runs]
    return [(plot_awcds_beside(spectra), "Mean awCDS over percentiles of the patch-token norm")]


def _of_shifts(one: Found) -> tuple[Figure, str]:
    rows = [row for row in _instability(one) if row.membership == one.run.study.outliers.membership]
    return plot_shifts(rows), f"{one.run.model}: mean EMD over the shift, under three readings"


def _of_sizes(runs: Sequence[Found]) -> list[tuple[Figure, str]]:
    roots = {one.run.model: one.run.run.root for one in runs}
    drawn: list[tuple[Figure, str]] = []
    for family in families(roots):
        try:
            mine = [roots[model] for model in family if model in roots]
            scaling = read_scaling(mine, CLASSIFICATION)
        except VitscopeError:
            continue  # one size alone has no course, and other images do not compare
        said = (f"Top-1 over the sizes of {family[0]} to {family[-1]}", *scaling.notes)
        drawn.append((draw_scaling(scaling), "; ".join(said)))
    return drawn


def _instability(one: Found) -> tuple[ReadingInstability, ...]:
    return read_instability(one.run.run.table("instability")).rows
