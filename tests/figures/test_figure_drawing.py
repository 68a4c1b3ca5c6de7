"""What the figures draw, checked against the numbers they were given."""

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from vitscope.figures.awcds import plot_awcds, tau_percentile
from vitscope.figures.cds import plot_cds
from vitscope.figures.instability import plot_instability
from vitscope.figures.norms import FLOOR, plot_norms
from vitscope.figures.style import BULK, HIGH, LOW
from vitscope.figures.training import plot_training
from vitscope.scope.awcds import NormSpectrum
from vitscope.scope.instability import GroupInstability, ReadingInstability
from vitscope.scope.outliers import NormHistogram, OutlierThreshold
from vitscope.scope.partition import Partition, partition_features

NONE = np.zeros(0, np.int64)
NAN = float("nan")


def random_cds(m: int = 400) -> np.ndarray:
    random = np.random.default_rng(3)
    cds = np.clip(
        np.concatenate([random.normal(0.08, 0.03, 3 * m // 4), random.normal(0.5, 0.06, m // 4)]),
        0,
        1,
    )
    cds[::9] = NAN
    return cds


def threshold(tau: float) -> OutlierThreshold:
    return OutlierThreshold(tau, "given", 0.1, (), NAN, "")


def bar_total(figure: Figure, colour: str) -> float:
    bars = [p for p in figure.axes[0].patches if to_hex(p.get_facecolor()) == colour]
    return sum(bar.get_height() for bar in bars)  # type: ignore[attr-defined]


def texts(figure: Figure) -> str:
    return " ".join(t.get_text() for t in figure.axes[0].texts)


@pytest.mark.parametrize("gamma", [None, 0.15, 0.5])
def test_cds_histogram_counts_each_scored_feature_on_its_side_of_gamma(gamma: float | None) -> None:
    cds = random_cds()
    part = partition_features(cds, gamma=gamma)
    figure = plot_cds(cds, part)
    assert bar_total(figure, LOW) == part.low.size
    assert bar_total(figure, HIGH) == part.high.size
    assert f"γ = {part.gamma:.3f}" in texts(figure)


def test_otsu_is_drawn_only_where_it_differs_from_gamma() -> None:
    cds = random_cds()
    by_hand = partition_features(cds, gamma=0.9)
    assert "Otsu" in texts(plot_cds(cds, by_hand))
    same = partition_features(cds, gamma=by_hand.otsu)
    assert "Otsu" not in texts(plot_cds(cds, same))


def test_without_a_score_the_cds_figure_says_so() -> None:
    part = Partition(NAN, "otsu", NAN, NAN, (), 0.0, NONE, NONE, np.arange(5))
    assert "no feature has a score" in texts(plot_cds(np.full(5, NAN), part))


@pytest.mark.parametrize("tau", [0.5, 3.0, 10.0, 31.0, 5000.0, NAN])
def test_norm_histogram_is_coloured_up_to_tau_and_beyond(tau: float) -> None:
    histogram = NormHistogram(np.linspace(0, 3, 7), np.array([5, 80, 7, 0, 1, 12]))
    figure = plot_norms(histogram, threshold(tau))
    cut = tau if np.isfinite(tau) else np.inf
    reach = {BULK: [1.0, min(cut, 1000.0)], HIGH: [max(cut, 1.0), 1000.0]}
    for colour, (left, right) in reach.items():
        drawn = [p for p in figure.axes[0].patches if to_hex(p.get_facecolor()) == colour]
        assert len(drawn) == (right > left)
        for stairs in drawn:
            data = stairs.get_data()  # type: ignore[attr-defined]
            assert data.edges[[0, -1]] == pytest.approx([left, right])
            assert set(data.values) <= {*map(float, histogram.counts), FLOOR}


def test_awcds_marks_where_the_norm_passes_tau() -> None:
    x = np.arange(0.5, 100)
    spectrum = NormSpectrum(x, 2 * x, x / 200, x / 1e4, np.full(100, 9), np.zeros(100, np.int64))
    assert tau_percentile(spectrum, 150.0) == pytest.approx(75)
    assert tau_percentile(spectrum, 1e4) is None
    lines = plot_awcds(spectrum, 150.0).axes[0].lines
    outliers = [line for line in lines if to_hex(line.get_color()) == HIGH]
    assert np.asarray(outliers[0].get_xdata()) == pytest.approx(x[x > 75])


def test_instability_places_both_groups_of_every_reading() -> None:
    def group(mean: float) -> GroupInstability:
        return GroupInstability(mean, 0.1, 10, 100, 0, mean)

    readings = [
        ReadingInstability("query", group(5.0), group(1.0)),
        ReadingInstability("key", group(NAN), group(2.0)),
    ]
    figure = plot_instability(readings, 8.0)
    places = {
        to_hex(line.get_color()): list(np.asarray(line.get_xdata()))
        for line in figure.axes[0].lines
        if to_hex(line.get_color()) in (LOW, HIGH) and len(np.asarray(line.get_xdata())) == 2
    }
    assert places[LOW] == [1.0, 2.0]
    assert places[HIGH][0] == 5.0
    assert np.isnan(places[HIGH][1])
    assert "nan" not in texts(figure)


def test_training_curve_shows_every_line_of_the_log() -> None:
    curve = [{"step": s, "fvu": 1 / s, "dead_share": 0.0} for s in range(1, 30)]
    upper, lower = plot_training(curve).axes
    assert np.asarray(upper.lines[0].get_ydata()) == pytest.approx([r["fvu"] for r in curve])
    assert np.asarray(lower.lines[0].get_xdata()) == pytest.approx(range(1, 30))


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    before = dict(matplotlib.rcParams)
    plot_cds(random_cds(), partition_features(random_cds()))
    assert dict(matplotlib.rcParams) == before
