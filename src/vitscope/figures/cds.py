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
    new_panel,
    plain_numbers,
    say_empty,
)
from vitscope.figures.thresholds import mark_threshold
from vitscope.scope.binned import bin_sample
from vitscope.scope.evidence import Evidence
from vitscope.scope.partition import Partition
from vitscope.scope.valley import density

N_BINS = 50
"""Bins of 0.02, finer than any γ of the paper."""

SOURCES = {"given": "given", "valley": "valley", "otsu": "Otsu"}


def plot_cds(
    cds: NDArray[np.float64], partition: Partition, evidence: Evidence | None = None
) -> Figure:
    """Draw the histogram of finite scores ``cds`` [m], the density and γ.

    With ``evidence``, γ's interval is shaded and other methods' thresholds are marked.
    """
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
        binned = bin_sample(scored, 0.0, 1.0)
        values = density(binned, partition.bandwidth)
        per_bin = values * scored.size * values.size / N_BINS
        ax.plot(binned.centres, per_bin, color=INK, lw=1.1, alpha=0.75)
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.yaxis.set_major_formatter(plain_numbers())
    ax.set_xlim(0, 1)
    text = f"γ = {partition.gamma:.3f} ({SOURCES[partition.source]})"
    mark_threshold(ax, partition.gamma, text, evidence, lambda cut: f"{cut:.3f}")
    patches = [Patch(color=LOW), Patch(color=HIGH)]
    add_legend(panel.figure, patches, ["low-CDS (local)", "high-CDS (context-dependent)"])
    return panel.figure
