"""The course of an SAE's training: what it leaves unexplained, and how many features are dead."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from vitscope.figures.style import HIGH, LOW, label_axes, new_panel, plain_numbers, say_empty


def plot_training(curve: Sequence[Mapping[str, float]]) -> Figure:
    """Draw FVU and the share of dead features over steps.

    Args:
        curve: lines of the metrics log, with ``step``, ``fvu`` and ``dead_share`` at least.
    """
    panel = new_panel(3.4, rows=2)
    upper, lower = panel.axes
    label_axes(upper, y="FVU of the batch")
    label_axes(lower, x="step", y="dead features")
    if not curve:
        say_empty(upper, "no training was logged")
        return panel.figure
    steps = np.asarray([row["step"] for row in curve])
    mark = "o" if len(curve) == 1 else ""
    upper.plot(steps, [row["fvu"] for row in curve], color=LOW, lw=1.5, marker=mark)
    lower.plot(steps, [row["dead_share"] for row in curve], color=HIGH, lw=1.5, marker=mark)
    upper.set_ylim(bottom=0)
    lower.set_ylim(0, max(0.01, 1.1 * max(row["dead_share"] for row in curve)))
    upper.yaxis.set_major_locator(MaxNLocator(4))
    lower.yaxis.set_major_locator(MaxNLocator(4))
    lower.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
    lower.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    lower.xaxis.set_major_formatter(plain_numbers())
    return panel.figure
