"""Several runs in one figure: CDS histograms, and awCDS over norms, as lines."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from vitscope.figures.cds import N_BINS
from vitscope.figures.style import HIGH, INK, LOW, MUTED, add_legend, label_axes, new_panel
from vitscope.scope.awcds import NormSpectrum

STYLES: tuple[tuple[str, object], ...] = (
    (LOW, "-"),
    (HIGH, (0, (4, 2))),
    (INK, (0, (1.2, 1.6))),
    (MUTED, (0, (6, 2, 1.2, 2))),
    ("#009e73", "-"),
    ("#cc79a7", (0, (4, 2))),
    ("#56b4e9", (0, (1.2, 1.6))),
    ("#e69f00", (0, (6, 2, 1.2, 2))),
)
"""Colour (Okabe-Ito) and dashes of each line in turn, so that colour alone decides nothing."""


def plot_cds_beside(runs: Sequence[tuple[str, NDArray[np.float64]]]) -> Figure:
    """Draw each run's histogram of CDS as a line: the share of its scored features per bin.

    Args:
        runs: name, and score of each feature [m], NaN where it has none.
    """
    panel = new_panel(2.9)
    ax = panel.axes[0]
    edges = np.linspace(0, 1, N_BINS + 1)
    handles: list[Line2D] = []
    for i, (_, cds) in enumerate(runs):
        scored = cds[np.isfinite(cds)]
        shares = np.histogram(scored, edges)[0] / max(scored.size, 1)
        colour, dashes = STYLES[i % len(STYLES)]
        ax.stairs(shares, edges, color=colour, ls=dashes, lw=1.5, baseline=None)
        handles.append(Line2D([], [], color=colour, ls=dashes, lw=1.5))  # pyright: ignore[reportArgumentType]
    ax.set_xlim(0, 1)
    ax.set_ylim(bottom=0)
    label_axes(ax, x="Contextual Dependency Score", y="share of features")
    add_legend(panel.figure, handles, [name for name, _ in runs], columns=1)
    return panel.figure


def plot_awcds_beside(runs: Sequence[tuple[str, NormSpectrum]]) -> Figure:
    """Draw each run's mean awCDS over percentiles of the norm, its interval as a band."""
    panel = new_panel(2.9)
    ax = panel.axes[0]
    handles: list[Line2D] = []
    for i, (_, spectrum) in enumerate(runs):
        colour, dashes = STYLES[i % len(STYLES)]
        x = spectrum.percentile
        ax.fill_between(x, spectrum.low, spectrum.high, color=colour, alpha=0.16, lw=0)
        ax.plot(x, spectrum.awcds, color=colour, ls=dashes, lw=1.5)  # pyright: ignore[reportArgumentType]
        handles.append(Line2D([], [], color=colour, ls=dashes, lw=1.5))  # pyright: ignore[reportArgumentType]
    ax.set_xlim(0, 100)
    ax.set_ylim(bottom=0)
    label_axes(ax, x="percentile of the patch-token norm", y="awCDS")
    add_legend(panel.figure, handles, [name for name, _ in runs], columns=1)
    return panel.figure
