"""Histogram of patch-token norms on a log axis, with the outlier threshold τ."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from vitscope.figures.style import (
    BULK,
    HIGH,
    add_legend,
    label_axes,
    new_panel,
    plain_numbers,
    say_empty,
)
from vitscope.figures.thresholds import mark_threshold
from vitscope.scope.evidence import Evidence
from vitscope.scope.outliers import NormHistogram, OutlierThreshold

FLOOR = 0.7
"""Where bars start on the log axis of counts: a single token is then still seen."""


def plot_norms(
    histogram: NormHistogram, threshold: OutlierThreshold, evidence: Evidence | None = None
) -> Figure:
    """Draw the histogram, tokens above τ in the colour of outliers, and τ's alternatives."""
    panel = new_panel(2.9)
    ax = panel.axes[0]
    label_axes(ax, x="L2 norm of the patch token (log)", y="tokens (log)")
    if histogram.counts.sum() == 0 or not np.isfinite(histogram.edges).all():
        say_empty(ax, "no token norms")
        ax.set_yticks([])
        return panel.figure
    tau = threshold.tau
    cut = float(np.log10(tau)) if np.isfinite(tau) and tau > 0 else float(histogram.edges[-1])
    for below, colour in ((True, BULK), (False, HIGH)):
        edges, counts = _side(histogram, cut, below=below)
        if counts.size:
            heights = np.maximum(counts.astype(np.float64), FLOOR)
            ax.stairs(heights, 10.0**edges, baseline=FLOOR, fill=True, color=colour)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(bottom=FLOOR)
    _tick(panel.figure)
    text = f"τ = {tau:.4g} ({threshold.source})"
    mark_threshold(ax, tau, text, evidence, lambda cut: f"{cut:.3g}")
    patches = [Patch(color=BULK), Patch(color=HIGH)]
    add_legend(panel.figure, patches, ["other tokens", "outlier tokens (norm > τ)"])
    return panel.figure


def _side(
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


def _tick(figure: Figure) -> None:
    ax = figure.axes[0]
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.yaxis.set_minor_locator(NullLocator())
    low, high = ax.get_xlim()
    # a narrow range needs ticks inside the decade, a wide one has no room for them
    inside = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if high / low < 20 else (1.0, 2.0, 5.0)
    ax.xaxis.set_major_locator(LogLocator(subs=inside, numticks=12))
    ax.xaxis.set_major_formatter(plain_numbers())
    ax.xaxis.set_minor_locator(NullLocator())
