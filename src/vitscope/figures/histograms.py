"""Histograms with a threshold: CDS split at γ (paper, Figure 6), token norms with τ.

Beside the threshold stand its interval, shaded, and where other methods would cut.
"""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from vitscope.figures.style import (
    BULK,
    HIGH,
    INK,
    LOW,
    RUN_STYLES,
    add_legend,
    label_axes,
    mark_x,
    new_panel,
    plain_numbers,
    say_empty,
)
from vitscope.scope.modes import bin_sample, density
from vitscope.scope.outliers import NormHistogram
from vitscope.scope.thresholds import Alternative, ThresholdEvidence
from vitscope.stages.outliers import OutliersResult
from vitscope.stages.partition import PartitionResult

CDS_HISTOGRAM_BINS = 50
"""Bins of 0.02, finer than any γ of the paper."""

WRITTEN = {"otsu": "Otsu"}
"""Methods that are written otherwise than they are called."""

FLOOR = 0.7
"""Where bars start on the log axis of counts: a single token is then still seen."""

HIGHEST, STEP = 0.87, 0.1
"""Where labels of alternatives start, as a share of the height, and how far they are apart."""

CLOSE = 0.01
"""An alternative nearer to the threshold than this share of the axis is not told apart from it."""

LABEL_SHARE = 0.34
"""Share of the axis that a label takes."""


def plot_cds(partition: PartitionResult) -> Figure:
    """Draw the histogram of the scores that are defined, their density, γ and its alternatives."""
    panel = new_panel(2.9)
    ax, cds = panel.axes[0], partition.cds
    scored = cds[np.isfinite(cds)]
    ax.set_xlim(0, 1)
    label_axes(ax, x="Contextual Dependency Score", y="features")
    if scored.size == 0:
        say_empty(ax, "no feature has a score")
        ax.set_yticks([])
        return panel.figure
    edges = np.linspace(0, 1, CDS_HISTOGRAM_BINS + 1)
    is_high = scored > partition.gamma
    groups = [scored[~is_high], scored[is_high]]
    ax.hist(groups, bins=edges.tolist(), stacked=True, color=[LOW, HIGH], rwidth=0.92)
    if partition.bandwidth > 0:
        binned = bin_sample(scored, 0.0, 1.0)
        values = density(binned, partition.bandwidth)
        per_bin = values * scored.size * values.size / CDS_HISTOGRAM_BINS
        ax.plot(binned.centres, per_bin, color=INK, lw=1.1, alpha=0.75)
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.yaxis.set_major_formatter(plain_numbers())
    ax.set_xlim(0, 1)
    text = f"γ = {partition.gamma:.3f} ({WRITTEN.get(partition.source, partition.source)})"
    mark_threshold(ax, partition.gamma, text, partition.evidence, lambda cut: f"{cut:.3f}")
    patches = [Patch(color=LOW), Patch(color=HIGH)]
    add_legend(panel.figure, patches, ["low-CDS (local)", "high-CDS (context-dependent)"])
    return panel.figure


def plot_cds_beside(runs: Sequence[tuple[str, NDArray[np.float64]]]) -> Figure:
    """Draw each run's histogram of CDS as a line: the share of its scored features per bin.

    Args:
        runs: name, and score of each feature [m], NaN where it has none.
    """
    panel = new_panel(2.9)
    ax = panel.axes[0]
    edges = np.linspace(0, 1, CDS_HISTOGRAM_BINS + 1)
    handles: list[Line2D] = []
    for i, (_, cds) in enumerate(runs):
        scored = cds[np.isfinite(cds)]
        shares = np.histogram(scored, edges)[0] / max(scored.size, 1)
        colour, dashes = RUN_STYLES[i % len(RUN_STYLES)]
        ax.stairs(shares, edges, color=colour, ls=dashes, lw=1.5, baseline=None)
        handles.append(Line2D([], [], color=colour, ls=dashes, lw=1.5))  # pyright: ignore[reportArgumentType]
    ax.set_xlim(0, 1)
    ax.set_ylim(bottom=0)
    label_axes(ax, x="Contextual Dependency Score", y="share of features")
    add_legend(panel.figure, handles, [name for name, _ in runs], columns=1)
    return panel.figure


def plot_norms(outliers: OutliersResult) -> Figure:
    """Draw the norms of tokens, those above τ in the colour of outliers, and τ's alternatives."""
    panel, histogram, tau = new_panel(2.9), outliers.norms, outliers.tau
    ax = panel.axes[0]
    label_axes(ax, x="L2 norm of the patch token (log)", y="tokens (log)")
    if histogram.counts.sum() == 0 or not np.isfinite(histogram.edges).all():
        say_empty(ax, "no token norms")
        ax.set_yticks([])
        return panel.figure
    cut = float(np.log10(tau)) if np.isfinite(tau) and tau > 0 else float(histogram.edges[-1])
    for below, colour in ((True, BULK), (False, HIGH)):
        edges, counts = _side_of(histogram, cut, below=below)
        if counts.size:
            heights = np.maximum(counts.astype(np.float64), FLOOR)
            ax.stairs(heights, 10.0**edges, baseline=FLOOR, fill=True, color=colour)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(bottom=FLOOR)
    _tick_norms(ax)
    text = f"τ = {tau:.4g} ({outliers.threshold.source})"
    mark_threshold(ax, tau, text, outliers.evidence, lambda cut: f"{cut:.3g}")
    patches = [Patch(color=BULK), Patch(color=HIGH)]
    add_legend(panel.figure, patches, ["other tokens", "outlier tokens (norm > τ)"])
    return panel.figure


def _side_of(
    histogram: NormHistogram, cut: float, *, below: bool
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the part of the histogram on one side of ``cut``; the bin it falls in is split."""
    edges = histogram.edges
    kept = edges[:-1] < cut if below else edges[1:] > cut
    if not kept.any():
        return edges[:0], histogram.counts[:0]
    lefts, rights = edges[:-1][kept], edges[1:][kept]
    ends = np.append(lefts, rights[-1])
    return (np.minimum(ends, cut) if below else np.maximum(ends, cut)), histogram.counts[kept]


def _tick_norms(ax: Axes) -> None:
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.yaxis.set_minor_locator(NullLocator())
    low, high = ax.get_xlim()
    # a narrow range needs ticks inside the decade, a wide one has no room for them
    inside = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if high / low < 20 else (1.0, 2.0, 5.0)
    ax.xaxis.set_major_locator(LogLocator(subs=inside, numticks=12))
    ax.xaxis.set_major_formatter(plain_numbers())
    ax.xaxis.set_minor_locator(NullLocator())


def mark_threshold(
    ax: Axes,
    threshold: float,
    text: str,
    evidence: ThresholdEvidence,
    write: Callable[[float], str],
) -> None:
    """Draw ``threshold`` with its interval shaded, and every alternative that differs from it.

    The axis must have its limits. Thresholds off the axis are not drawn.

    Args:
        ax: the histogram's axes, linear or logarithmic in x.
        threshold: the one that was used; not drawn where it is NaN.
        text: beside its line.
        evidence: its interval and alternatives.
        write: how a threshold is written.
    """
    limits = ax.get_xlim()
    low, high = evidence.interval.low, evidence.interval.high
    if np.isfinite(low):
        ax.axvspan(max(low, limits[0]), min(high, limits[1]), color=INK, alpha=0.13, lw=0)
    place = _place(ax, threshold)
    if 0 <= place <= 1:
        mark_x(ax, threshold, text, left=place > 1 - LABEL_SHARE, on_paper=True)
    for index, other in enumerate(_told_apart(ax, threshold, evidence.alternatives)):
        at = _place(ax, other.threshold)
        # away from the threshold, where there is room
        left = at > LABEL_SHARE if at < place else at > 1 - LABEL_SHARE
        level = HIGHEST - STEP * index
        words = f"{WRITTEN.get(other.name, other.name)} {write(other.threshold)}"
        mark_x(ax, other.threshold, words, dashed=True, left=left, level=level, on_paper=True)
    ax.set_xlim(limits)


def _told_apart(
    ax: Axes, threshold: float, alternatives: Sequence[Alternative]
) -> list[Alternative]:
    """Return the alternatives on the axis that are not where the threshold is, left to right."""
    chosen = _place(ax, threshold)
    places = [(_place(ax, other.threshold), other) for other in alternatives]
    shown = [
        (place, other)
        for place, other in places
        if 0 <= place <= 1 and not abs(place - chosen) < CLOSE
    ]
    return [other for _, other in sorted(shown, key=lambda pair: (pair[0], pair[1].name))]


def _place(ax: Axes, x: float) -> float:
    """Return where ``x`` is on the axis, 0 to 1 within its limits; NaN where it is nowhere."""
    low, high = ax.get_xlim()
    if ax.get_xscale() == "log":
        if not x > 0:
            return float("nan")
        low, high, x = np.log(low), np.log(high), np.log(x)
    return float((x - low) / (high - low))
