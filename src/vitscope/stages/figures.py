"""Every figure of a run, as files: what it holds is drawn, and what it lacks is said."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from vitscope.errors import ArtifactError, VitscopeError
from vitscope.figures.awcds import plot_awcds
from vitscope.figures.beside import plot_awcds_beside, plot_cds_beside
from vitscope.figures.cds import plot_cds
from vitscope.figures.files import save_figure
from vitscope.figures.gallery import plot_gallery
from vitscope.figures.instability import plot_instability
from vitscope.figures.norms import plot_norms
from vitscope.figures.reliability import plot_reliability
from vitscope.figures.shifts import plot_shifts
from vitscope.figures.style import HIGH, LOW
from vitscope.figures.token_maps import plot_awcds_maps, plot_norm_maps
from vitscope.figures.training import plot_training
from vitscope.progress import track
from vitscope.report.removal import reliability_lines
from vitscope.scope.evidence import Evidence
from vitscope.stages.context import Context
from vitscope.stages.figure_source import FigureSource, NotInRunError
from vitscope.stages.removal_tables import read_removal
from vitscope.stages.run_tables import read_norm_histogram, read_spectrum
from vitscope.stages.scaling import draw_scaling, read_scaling
from vitscope.store.atomic import read_json
from vitscope.store.run_directory import RunDirectory
from vitscope.study import load_study

PER_GROUP = 6
"""Features of each gallery, on half a page."""


@dataclass(frozen=True)
class FigureOutcome:
    """One figure.

    Attributes:
        name: of its files, without a suffix.
        shows: what it shows.
        files: written; none where there was nothing to draw from.
        reason: why there are none.
    """

    name: str
    shows: str
    files: tuple[Path, ...]
    reason: str = ""


def write_figures(
    runs: Sequence[Path],
    out: Path | None = None,
    *,
    per_group: int = PER_GROUP,
    run_code: bool = False,
) -> tuple[FigureOutcome, ...]:
    """Write every figure of the first run, and those that show all runs together.

    Args:
        runs: run directories.
        out: folder of the files; ``figures`` in the first run unless given.
        per_group: features of each gallery.
        run_code: whether a backbone that a study names as Python code is executed; its pictures
            are left out otherwise.

    Raises:
        ArtifactError: a folder holds no run, nothing could be drawn, or nothing could be written.
    """
    sources = [_open(folder, per_group, run_code) for folder in runs]
    first = sources[0]
    drawings = dict(DRAWINGS)
    if len(sources) > 1:
        drawings |= {
            "cds-runs": ("CDS histograms of the runs", lambda _: _cds_runs(sources)),
            "awcds-runs": ("awCDS over norms of the runs", lambda _: _awcds_runs(sources)),
            "scaling": ("probes over model sizes (Figure 8)", lambda _: _scaling(sources)),
        }
    folder = first.run.figures if out is None else out
    with first.run.locked(), track("figures", len(drawings), "figures") as progress:
        outcomes: list[FigureOutcome] = []
        for name, (shows, draw) in drawings.items():
            outcomes.append(_write(name, shows, draw, first, folder))
            progress.advance(1)
    if not any(outcome.files for outcome in outcomes):
        raise ArtifactError(
            f"{first.run.root} holds nothing to draw yet: `vitscope run` on its study first"
        )
    return tuple(outcomes)


def _open(folder: Path, per_group: int, run_code: bool) -> FigureSource:
    run = RunDirectory(folder.absolute())
    if not run.study.is_file():
        raise ArtifactError(
            f"{folder} holds no run (no study.toml); give the directory of a run, runs/NAME"
        )
    return FigureSource(Context(load_study(run.study), run), per_group, run_code)


def _write(
    name: str,
    shows: str,
    draw: Callable[[FigureSource], Figure],
    source: FigureSource,
    folder: Path,
) -> FigureOutcome:
    try:
        figure = draw(source)
    except VitscopeError as error:  # a lost backbone costs the pictures, not the curves
        return FigureOutcome(name, shows, (), str(error))
    return FigureOutcome(name, shows, tuple(save_figure(figure, folder, name)))


def _cds(source: FigureSource) -> Figure:
    source.need("score", "partition")
    evidence = Evidence.from_table(read_json(source.run.table("partition"))["evidence"])
    return plot_cds(source.scores.cds, source.partition, evidence)


def _awcds(source: FigureSource) -> Figure:
    source.need("outliers", "awcds")
    return plot_awcds(read_spectrum(source.run), source.tau.tau)


def _norms(source: FigureSource) -> Figure:
    source.need("outliers")
    evidence = Evidence.from_table(read_json(source.run.table("outliers"))["evidence"])
    return plot_norms(read_norm_histogram(source.run), source.tau, evidence)


def _gallery(group: str, colour: str) -> Callable[[FigureSource], Figure]:
    def draw(source: FigureSource) -> Figure:
        source.need("train", "score", "partition")
        shift = source.context.study.scope.shift
        return plot_gallery(source.gallery[group], source.scores.cds, shift=shift, colour=colour)

    return draw


def _norm_maps(source: FigureSource) -> Figure:
    source.need("train", "outliers", "score", "partition")
    return plot_norm_maps(source.token_maps, source.tau.tau)


def _awcds_maps(source: FigureSource) -> Figure:
    source.need("train", "outliers", "score", "partition")
    return plot_awcds_maps(source.token_maps, source.tau.tau)


def _instability(source: FigureSource) -> Figure:
    source.need("instability")
    return plot_instability(source.instability.own, source.diameter)


def _shifts(source: FigureSource) -> Figure:
    source.need("instability")
    if len(source.instability.shifts) < 2:
        raise NotInRunError("compared at one shift only: `vitscope instability --shifts 1-6` first")
    return plot_shifts(source.instability.shown)


def _reliability(source: FigureSource) -> Figure:
    figures = read_removal(source.run, ("zeroshot",))
    if figures is None:
        raise NotInRunError(
            "no predictions by text: set probes.zeroshot.images, then `vitscope zeroshot`"
        )
    return plot_reliability(reliability_lines(figures))


def _training(source: FigureSource) -> Figure:
    source.need("train")
    if not source.run.training_log.is_file():
        raise NotInRunError("this run trained no SAE: it was given one")
    lines = source.run.training_log.read_text(encoding="utf-8").splitlines()
    return plot_training([json.loads(line) for line in lines])


def _cds_runs(sources: Sequence[FigureSource]) -> Figure:
    _need_all(sources, "partition")
    return plot_cds_beside([(one.figures.name, one.figures.cds) for one in sources])


def _awcds_runs(sources: Sequence[FigureSource]) -> Figure:
    _need_all(sources, "awcds")
    return plot_awcds_beside([(one.figures.name, one.figures.spectrum) for one in sources])


def _scaling(sources: Sequence[FigureSource]) -> Figure:
    return draw_scaling(read_scaling([one.run.root for one in sources], "classification"))


def _need_all(sources: Sequence[FigureSource], stage: str) -> None:
    for source in sources:
        try:
            source.need(stage)
        except NotInRunError as error:
            raise NotInRunError(f"{source.run.root}: {error}") from None


DRAWINGS: dict[str, tuple[str, Callable[[FigureSource], Figure]]] = {
    "cds": ("CDS histogram (paper, Figure 6)", _cds),
    "awcds": ("awCDS over the norm spectrum (Figure 7)", _awcds),
    "gallery-low": ("low-CDS features (Figure 9)", _gallery("low", LOW)),
    "gallery-high": ("high-CDS features (Figure 10)", _gallery("high", HIGH)),
    "norms": ("norms of patch tokens, and τ", _norms),
    "norm-maps": ("norms over images, outliers ringed", _norm_maps),
    "awcds-maps": ("awCDS over images", _awcds_maps),
    "instability": ("attention instability (Table 7)", _instability),
    "shifts": ("attention instability over shifts (Table 9)", _shifts),
    "reliability": ("confidence against accuracy, without each group", _reliability),
    "training": ("training of the SAE", _training),
}
"""Name -> what it shows, and how it is drawn; in the order of a paper."""
