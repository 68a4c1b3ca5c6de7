"""Reliability diagrams: points of enough predictions, for the groups and not for controls."""

from dataclasses import replace

import numpy as np
import pytest
from tests.report.made_up_run import NAN, make_zero_shot

from vitscope.figures.removal import FEWEST_PREDICTIONS, plot_reliability
from vitscope.probes.results import Reliability
from vitscope.probes.zero_shot import reliability
from vitscope.stages.zeroshot import ZeroShotResult


def with_diagram(diagram: Reliability) -> ZeroShotResult:
    found = make_zero_shot()
    return replace(
        found, variants=tuple(replace(one, calibration=diagram) for one in found.variants)
    )


def test_points_of_few_predictions_are_not_drawn() -> None:
    random = np.random.default_rng(0)
    sure = np.concatenate(
        [np.full(FEWEST_PREDICTIONS - 1, 0.1), np.full(FEWEST_PREDICTIONS, 0.5), np.full(200, 0.9)]
    )
    diagram = reliability(sure, random.random(sure.size) < sure, bins=10)
    ax, below = plot_reliability(with_diagram(diagram)).axes
    points = np.asarray(ax.lines[1].get_xdata())
    np.testing.assert_allclose(points, [0.5, 0.9])
    shares = below.patches[0].get_data().values  # type: ignore[attr-defined]
    assert shares.sum() == pytest.approx(1) and shares[0] == pytest.approx(
        (FEWEST_PREDICTIONS - 1) / sure.size
    )


def test_without_predictions_the_figure_says_so() -> None:
    empty = Reliability((0.0, 1.0), (0,), (NAN,), (NAN,), NAN)
    texts = [text.get_text() for text in plot_reliability(with_diagram(empty)).axes[0].texts]
    assert texts == ["nothing was predicted"]


def test_diagrams_are_those_of_the_groups_not_of_controls() -> None:
    (legend,) = plot_reliability(make_zero_shot()).legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "original", "high-CDS removed", "low-CDS removed",
    ]  # fmt: skip
