"""The course of an SAE's training: what it leaves unexplained, and how many features are dead."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from vitscope.figures.style import HIGH, LOW, label_axes, new_panel, plain_numbers, say_empty


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
