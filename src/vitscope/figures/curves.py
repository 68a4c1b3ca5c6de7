"""Curves: awCDS over percentiles of the token norm (paper, Figure 7), and a training's course."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from vitscope.figures.style import (
    HIGH,
    LOW,
    RUN_STYLES,
    add_legend,
    label_axes,
    mark_x,
    new_panel,
    plain_numbers,
    say_empty,
)
from vitscope.scope.awcds import NormSpectrum


def plot_awcds(spectrum: NormSpectrum, tau: float) -> Figure:
    """Draw mean awCDS per percentile bin, its interval as a band, and where τ falls."""
    panel = new_panel(2.9)
    ax = panel.axes[0]
    ax.set_xlim(0, 100)
    label_axes(ax, x="percentile of the patch-token norm", y="awCDS")
    defined = np.isfinite(spectrum.awcds)
    if not defined.any():
        say_empty(ax, "no token has an active feature with a score")
        ax.set_yticks([])
        return panel.figure
    x, y = spectrum.percentile, spectrum.awcds
    ax.fill_between(x, spectrum.low, spectrum.high, color=LOW, alpha=0.22, lw=0)
    ax.plot(x, y, color=LOW, lw=1.6)
    outlier = defined & (spectrum.norm > tau)
    ax.plot(x[defined & ~outlier], y[defined & ~outlier], "o", ms=2.6, color=LOW)
    ax.plot(x[outlier], y[outlier], "o", ms=4.2, color=HIGH)
    ax.set_ylim(0, max(1e-3, 1.12 * float(np.nanmax(np.fmax(y, spectrum.high)))))
    crossing = tau_percentile(spectrum, tau)
    if crossing is not None:
        mark_x(ax, crossing, f"norm > τ from {crossing:.0f}", dashed=True, left=crossing > 50)
    return panel.figure


def tau_percentile(spectrum: NormSpectrum, tau: float) -> float | None:
    """Return the percentile at which the bins' mean norm passes τ; None where it does not."""
    if not np.isfinite(tau) or not np.isfinite(spectrum.norm).all():
        return None
    if spectrum.norm.size < 2 or not spectrum.norm[0] < tau < spectrum.norm[-1]:
        return None
    return float(np.interp(tau, spectrum.norm, spectrum.percentile))


def plot_awcds_beside(runs: Sequence[tuple[str, NormSpectrum]]) -> Figure:
    """Draw each run's mean awCDS over percentiles of the norm, its interval as a band."""
    panel = new_panel(2.9)
    ax = panel.axes[0]
    handles: list[Line2D] = []
    for i, (_, spectrum) in enumerate(runs):
        colour, dashes = RUN_STYLES[i % len(RUN_STYLES)]
        x = spectrum.percentile
        ax.fill_between(x, spectrum.low, spectrum.high, color=colour, alpha=0.16, lw=0)
        ax.plot(x, spectrum.awcds, color=colour, ls=dashes, lw=1.5)  # pyright: ignore[reportArgumentType]
        handles.append(Line2D([], [], color=colour, ls=dashes, lw=1.5))  # pyright: ignore[reportArgumentType]
    ax.set_xlim(0, 100)
    ax.set_ylim(bottom=0)
    label_axes(ax, x="percentile of the patch-token norm", y="awCDS")
    add_legend(panel.figure, handles, [name for name, _ in runs], columns=1)
    return panel.figure


def plot_training(curve: Sequence[Mapping[str, float]]) -> Figure:
    """Draw FVU, of batches and of held-out tokens, and the share of dead features over steps.

    The first panel's axis is logarithmic: what the last half of a training gains would not be seen
    beside the fall of its first steps.

    Args:
        curve: lines of the metrics log, with ``step``, ``fvu`` and ``dead_share`` at least;
            ``held_out_fvu`` stands in those of a look at held-out tokens.
    """
    panel = new_panel(3.4, rows=2)
    upper, lower = panel.axes
    label_axes(upper, y="FVU")
    label_axes(lower, x="step", y="dead features")
    if not curve:
        say_empty(upper, "no training was logged")
        return panel.figure
    steps = np.asarray([row["step"] for row in curve])
    mark = "o" if len(curve) == 1 else ""
    batch = [row["fvu"] for row in curve]
    upper.plot(steps, batch, color=LOW, lw=1.2, marker=mark, label="batch")
    looks = [(row["step"], row["held_out_fvu"]) for row in curve if "held_out_fvu" in row]
    if looks:
        upper.plot(*zip(*looks, strict=True), "o", ms=3, color=HIGH, label="held out, under θ")
        upper.legend(loc="upper right", frameon=False)
    lower.plot(
        steps, [row["dead_share"] for row in curve], color=HIGH, lw=1.5, marker=mark, clip_on=False
    )
    upper.set_yscale("log")
    lower.set_ylim(0, max(0.01, 1.1 * max(row["dead_share"] for row in curve)))
    upper.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    upper.yaxis.set_major_formatter(plain_numbers())
    upper.yaxis.set_minor_formatter(NullFormatter())
    lower.yaxis.set_major_locator(MaxNLocator(4))
    lower.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
    lower.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    lower.xaxis.set_major_formatter(plain_numbers())
    return panel.figure
