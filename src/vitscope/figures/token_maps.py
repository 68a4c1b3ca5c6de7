"""Single images patch by patch: token norms with outliers ringed, and awCDS over the image."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from vitscope.figures.pictures import bare_picture, lay_over, ring_patches, show_view
from vitscope.figures.style import (
    HIGH,
    INK,
    MUTED,
    SMALL_PT,
    WIDTH_IN,
    add_legend,
    plain_numbers,
    say_empty,
)
from vitscope.scope.gallery import TokenMaps

MAP_COLOURS = "viridis"
"""Perceptually uniform, ordered for colour-blind readers too; vermillion stands out from it."""

LEGEND_IN = 0.22
"""Height of the legend."""

OPACITY = 0.72
"""Of the awCDS map over the greyed photograph."""

NARROW = 12.0
"""Ratio of the highest norm to the lowest below which ticks are needed inside the decade."""


def plot_norm_maps(maps: Sequence[TokenMaps], tau: float) -> Figure:
    """Draw each image above the map of its tokens' norms, tokens above τ ringed in both.

    Args:
        maps: as ``token_maps`` returns them, a column each.
        tau: outlier threshold; NaN rings none.
    """
    norms = [one.norms for one in maps]
    limits = _limits(norms)
    low, high = max(limits[0], 1e-6), max(limits[1], 2e-6)

    def draw(ax: Axes, one: TokenMaps, scale: ScalarMappable) -> None:
        bare_picture(ax)
        lay_over(ax, np.asarray(scale.to_rgba(one.norms), dtype=np.float64))
        ring_patches(ax, one.norms > tau, width=1.0)

    figure = _sheet(maps, LogNorm(low, high), "norm (log)", draw, tau)
    if maps:
        axis = figure.axes[-1].yaxis
        inside = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if high / low < NARROW else (1.0, 3.0)
        axis.set_major_locator(LogLocator(subs=inside, numticks=8))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(plain_numbers())
    return figure


def plot_awcds_maps(maps: Sequence[TokenMaps], tau: float = float("nan")) -> Figure:
    """Draw each image above its greyed self under the awCDS of its tokens.

    Tokens without an active feature that has a score are left clear.

    Args:
        maps: as ``token_maps`` returns them, a column each.
        tau: outlier threshold: tokens above it are ringed; NaN rings none.
    """

    def draw(ax: Axes, one: TokenMaps, scale: ScalarMappable) -> None:
        show_view(ax, one.view, one.awcds.shape[0], grey=True)
        colours = np.asarray(scale.to_rgba(one.awcds), dtype=np.float64)
        colours[..., 3] = np.where(np.isfinite(one.awcds), OPACITY, 0.0)
        lay_over(ax, colours)
        ring_patches(ax, one.norms > tau, width=1.0)

    limits = _limits([one.awcds for one in maps])
    figure = _sheet(maps, Normalize(0.0, max(limits[1], 1e-3)), "awCDS", draw, tau)
    if maps:
        figure.axes[-1].yaxis.set_major_locator(MaxNLocator(5))
    return figure


def _sheet(
    maps: Sequence[TokenMaps],
    norm: Normalize,
    label: str,
    draw: Callable[[Axes, TokenMaps, ScalarMappable], None],
    tau: float,
) -> Figure:
    """Draw photographs above what ``draw`` makes of each, with one scale at the right."""
    n, marks_outliers = max(len(maps), 1), bool(maps) and np.isfinite(tau)
    side = (WIDTH_IN - 0.65) / max(n, 2)
    figure = Figure(
        figsize=(WIDTH_IN, 2 * side + 0.12 + (LEGEND_IN if marks_outliers else 0.0)),
        layout="constrained",
        facecolor="white",
    )
    # the rings of border patches reach beyond their picture
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.0)  # pyright: ignore
    axes = figure.subplots(2, n, squeeze=False)
    if not maps:
        for ax in axes.flat:
            ax.set_axis_off()
        say_empty(axes[0, 0], "no images")
        return figure
    scale = ScalarMappable(norm, colormaps[MAP_COLOURS])
    for column, one in enumerate(maps):
        show_view(axes[0, column], one.view, one.norms.shape[0])
        ring_patches(axes[0, column], one.norms > tau, width=1.0)
        draw(axes[1, column], one, scale)
    if marks_outliers:
        ring = Line2D([], [], ls="", marker="o", mfc="none", mec=HIGH, mew=1.2, ms=7)
        add_legend(figure, [ring], [f"outlier token: norm > τ = {tau:.3g}"])
    bar = figure.colorbar(scale, ax=axes[1, :], fraction=0.06, pad=0.02, aspect=14)
    bar.outline.set_visible(False)  # pyright: ignore
    bar.set_label(label, fontsize=SMALL_PT, color=INK)
    bar.ax.tick_params(which="both", colors=MUTED, labelsize=SMALL_PT, labelcolor=INK, length=2)
    return figure


def _limits(values: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    every = np.concatenate([one.ravel() for one in values]) if values else np.zeros(0)
    finite = every[np.isfinite(every)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
