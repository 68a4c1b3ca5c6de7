"""Every figure of a run by name: what it shows, what it is drawn from, and all of them as files."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from vitscope.errors import ArtifactError, ConfigError, VitscopeError
from vitscope.figures.curves import plot_awcds, plot_awcds_beside, plot_training
from vitscope.figures.files import save_figure
from vitscope.figures.gallery import plot_gallery
from vitscope.figures.histograms import plot_cds, plot_cds_beside, plot_norms
from vitscope.figures.instability import plot_instability, plot_shifts
from vitscope.figures.misses import plot_misses
from vitscope.figures.removal import plot_reliability
from vitscope.figures.scaling import plot_scaling, read_scaling
from vitscope.figures.style import HIGH, INK, LOW
from vitscope.figures.token_maps import plot_awcds_maps, plot_norm_maps
from vitscope.progress import track
from vitscope.run import Run
from vitscope.scope.gallery import IMAGES_PER_FEATURE, exemplar_views

FEATURES_DRAWN = 6
"""Features of a gallery that is a figure, on half a page; a report's has more."""

GROUP_COLOURS = {"low": LOW, "high": HIGH, "unscored": INK}


def _never(_: Run) -> str:
    return ""


@dataclass(frozen=True)
class Drawing:
    """A figure of one run.

    Attributes:
        shows: what it shows, in a few words; a page tells it to readers who cannot see it.
        stages: that must have finished.
        draw: draws it.
        lacks: why a run has nothing to draw it from, and what to run; nothing where it has.
    """

    shows: str
    stages: tuple[str, ...]
    draw: Callable[[Run], Figure]
    lacks: Callable[[Run], str] = _never


@dataclass(frozen=True)
class FigureOutcome:
    """A figure that was to be written.

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


def draw_figure(run: Run, name: str) -> Figure:
    """Draw a figure of a run.

    Raises:
        ConfigError: there is no such figure; the message names those that are spelled like it.
        ArtifactError: a stage that it is drawn from has not finished, or found nothing to draw.
    """
    if name not in FIGURES:
        near = difflib.get_close_matches(name, FIGURES, cutoff=0.4)
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise ConfigError(f"no figure '{name}'; {meant}figures: {', '.join(FIGURES)}")
    drawing = FIGURES[name]
    if why := drawing.lacks(run):
        raise ArtifactError(why)
    run.require(*drawing.stages)
    return drawing.draw(run)


def draw_feature(run: Run, feature: int, n_images: int = IMAGES_PER_FEATURE) -> Figure:
    """Draw a feature's strongest images in both views, encoded anew, with its activation over them.

    Raises:
        ArtifactError: a stage has not finished, or the feature has no exemplars.
    """
    run.require("images", "train", "score", "partition")
    (shown,) = exemplar_views(
        run.backbone,
        run.sae,
        run.image_refs,
        run.scoring.scores,
        [feature],
        shift=run.study.scope.shift,
        stretch=run.study.stretch,
        per_feature=n_images,
        reading=run.options,
    )
    if not shown.images:
        raise ArtifactError(
            f"feature {feature} has no exemplars: it fires on none of the evaluation images, or "
            "scope.sample_features left it out"
        )
    colour = GROUP_COLOURS[str(run.features["group"][feature])]
    return plot_gallery(
        [shown],
        run.partition.cds,
        shift=run.study.scope.shift,
        columns=1,
        images=len(shown.images),
        colour=colour,
    )


def write_figures(runs: Sequence[Run], out: Path | None = None) -> tuple[FigureOutcome, ...]:
    """Write every figure of the first run, and those that show all runs together.

    A figure that cannot be drawn costs no other: where the backbone is lost, the curves are drawn.

    Args:
        runs: one or more.
        out: folder of the files; ``figures`` in the first run unless given.

    Raises:
        ArtifactError: nothing could be drawn, or nothing could be written.
        RunLockedError: another process works in the first run.
    """
    first = runs[0]
    wanted: dict[str, tuple[str, Callable[[], Figure]]] = {
        name: (drawing.shows, lambda name=name: draw_figure(first, name))
        for name, drawing in FIGURES.items()
    }
    if len(runs) > 1:
        wanted |= {
            name: (shows, lambda draw=draw: draw(runs))
            for name, (shows, draw) in FIGURES_OF_SEVERAL.items()
        }
    folder = first.directory.figures if out is None else out
    outcomes: list[FigureOutcome] = []
    with first.directory.locked(), track("figures", len(wanted), "figures") as progress:
        for name, (shows, draw) in wanted.items():
            files, reason = _written(draw, folder, name)
            outcomes.append(FigureOutcome(name, shows, files, reason))
            progress.advance(1)
    if not any(outcome.files for outcome in outcomes):
        raise ArtifactError(
            f"{first.root} holds nothing to draw yet: `vitscope run` on its study first"
        )
    return tuple(outcomes)


def _written(draw: Callable[[], Figure], folder: Path, name: str) -> tuple[tuple[Path, ...], str]:
    try:
        figure = draw()
    except VitscopeError as error:  # a lost backbone costs the pictures, not the curves
        return (), str(error)
    return tuple(save_figure(figure, folder, name)), ""


def _gallery(group: str) -> Callable[[Run], Figure]:
    def draw(run: Run) -> Figure:
        choice = run.gallery_choice
        features = choice.low if group == "low" else choice.high
        # of the report's features those at evenly spaced places, the two ends included
        kept = min(FEATURES_DRAWN, len(features))
        places = [round(i * (len(features) - 1) / max(kept - 1, 1)) for i in range(kept)]
        shown = run.gallery([features[place] for place in places])
        shift, colour = run.study.scope.shift, GROUP_COLOURS[group]
        return plot_gallery(shown, run.partition.cds, shift=shift, colour=colour)

    return draw


def _lacks_shifts(run: Run) -> str:
    if not run.has("instability") or len(run.instability.shifts) > 1:
        return ""
    return "compared at one shift only: `vitscope instability --shifts 1-6` first"


def _lacks_predictions(run: Run) -> str:
    if run.has("zeroshot"):
        return ""
    return "no predictions by text: set probes.zeroshot.images, then `vitscope zeroshot`"


def _lacks_training(run: Run) -> str:
    trained = not run.has("train") or run.training.training is not None
    return "" if trained else "this run trained no SAE: it was given one"


FOR_GALLERIES = ("partition", "gallery")
FOR_TOKEN_MAPS = ("outliers", "gallery")

FIGURES: dict[str, Drawing] = {
    "cds": Drawing(
        "CDS histogram (paper, Figure 6)", ("partition",), lambda run: plot_cds(run.partition)
    ),
    "awcds": Drawing(
        "awCDS over the norm spectrum (Figure 7)",
        ("outliers", "awcds"),
        lambda run: plot_awcds(run.awcds.spectrum, run.outliers.tau),
    ),
    "gallery-low": Drawing("low-CDS features (Figure 9)", FOR_GALLERIES, _gallery("low")),
    "gallery-high": Drawing("high-CDS features (Figure 10)", FOR_GALLERIES, _gallery("high")),
    "norms": Drawing(
        "norms of patch tokens, and τ", ("outliers",), lambda run: plot_norms(run.outliers)
    ),
    "norm-maps": Drawing(
        "norms over images, outliers ringed",
        FOR_TOKEN_MAPS,
        lambda run: plot_norm_maps(run.token_maps, run.outliers.tau),
    ),
    "awcds-maps": Drawing(
        "awCDS over images",
        FOR_TOKEN_MAPS,
        lambda run: plot_awcds_maps(run.token_maps, run.outliers.tau),
    ),
    "misses": Drawing(
        "pairs missed, by strength and by kind",
        ("score",),
        lambda run: plot_misses(run.scoring.scores),
    ),
    "instability": Drawing(
        "attention instability (Table 7)",
        ("instability",),
        lambda run: plot_instability(run.instability),
    ),
    "shifts": Drawing(
        "attention instability over shifts (Table 9)",
        ("instability",),
        lambda run: plot_shifts(run.instability),
        _lacks_shifts,
    ),
    "reliability": Drawing(
        "confidence against accuracy, without each group",
        ("zeroshot",),
        lambda run: plot_reliability(run.zeroshot),
        _lacks_predictions,
    ),
    "training": Drawing(
        "training of the SAE",
        ("train",),
        lambda run: plot_training(run.training_log),
        _lacks_training,
    ),
}
"""In the order of a paper."""

FIGURES_OF_SEVERAL: dict[str, tuple[str, Callable[[Sequence[Run]], Figure]]] = {
    "cds-runs": (
        "CDS histograms of the runs",
        lambda runs: plot_cds_beside([(one.name, one.partition.cds) for one in runs]),
    ),
    "awcds-runs": (
        "awCDS over norms of the runs",
        lambda runs: plot_awcds_beside([(one.name, one.awcds.spectrum) for one in runs]),
    ),
    "scaling": (
        "probes over model sizes (Figure 8)",
        lambda runs: plot_scaling(read_scaling(runs, "classification")),
    ),
}
"""Name -> what it shows of several runs, and how it is drawn."""
