"""Histogram of the Contextual Dependency Score, split at γ (paper, Figure 6)."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vitscope.figures.style import (
    HIGH,
    INK,
    LOW,
    add_legend,
    label_axes,
    mark_x,
    new_panel,
    plain_numbers,
    say_empty,
)
from vitscope.scope.partition import Partition
from vitscope.scope.valley import density

N_BINS = 50
"""Bins of 0.02, finer than any γ of the paper."""

CLOSE = 0.01
"""Otsu's threshold is not drawn where it would lie on γ."""

SOURCES = {"given": "given", "valley": "valley", "otsu": "Otsu"}


def plot_cds(cds: NDArray[np.float64], partition: Partition) -> Figure:
    """Draw the histogram of finite scores ``cds`` [m], γ, Otsu's threshold and the density."""
    panel = new_panel(2.9)
    ax = panel.axes[0]
    scored = cds[np.isfinite(cds)]
    ax.set_xlim(0, 1)
    label_axes(ax, x="Contextual Dependency Score", y="features")
    if scored.size == 0:
        say_empty(ax, "no feature has a score")
        ax.set_yticks([])
        return panel.figure
    edges = np.linspace(0, 1, N_BINS + 1)
    is_high = scored > partition.gamma
    groups = [scored[~is_high], scored[is_high]]
    ax.hist(groups, bins=edges.tolist(), stacked=True, color=[LOW, HIGH], rwidth=0.92)
    if partition.bandwidth > 0:
        curve = density(scored, 0.0, 1.0, partition.bandwidth)
        per_bin = curve.values * scored.size * curve.centres.size / N_BINS
        ax.plot(curve.centres, per_bin, color=INK, lw=1.1, alpha=0.75)
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.yaxis.set_major_formatter(plain_numbers())
    _mark_thresholds(panel.figure, partition)
    patches = [Patch(color=LOW), Patch(color=HIGH)]
    add_legend(panel.figure, patches, ["low-CDS (local)", "high-CDS (context-dependent)"])
    return panel.figure


def _mark_thresholds(figure: Figure, partition: Partition) -> None:
    ax = figure.axes[0]
    gamma, otsu = partition.gamma, partition.otsu
    if np.isfinite(gamma):
        text = f"γ = {gamma:.3f} ({SOURCES[partition.source]})"
        mark_x(ax, gamma, text, left=gamma > 0.7)
    if np.isfinite(otsu) and abs(otsu - gamma) > CLOSE:
        mark_x(ax, otsu, f"Otsu {otsu:.3f}", dashed=True, left=otsu > 0.7, level=0.86)
