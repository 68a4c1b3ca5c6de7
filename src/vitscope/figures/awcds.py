"""Activation-weighted CDS over the percentiles of the token norm (paper, Figure 7)."""

import numpy as np
from matplotlib.figure import Figure

from vitscope.figures.style import HIGH, LOW, label_axes, mark_x, new_panel, say_empty
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
