"""What the figures draw, checked against the numbers they were given."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from tests.report.made_up_run import make_outliers, make_partition, make_spectrum, norm_table

from vitscope.figures.curves import plot_awcds, plot_awcds_beside, plot_training, tau_percentile
from vitscope.figures.files import inline_svg
from vitscope.figures.histograms import FLOOR, plot_cds, plot_cds_beside, plot_norms
from vitscope.figures.style import BULK, HIGH, INK, LOW
from vitscope.scope.awcds import NormSpectrum
from vitscope.scope.bootstrap import Interval
from vitscope.scope.outliers import OutlierThreshold
from vitscope.scope.thresholds import Alternative, ThresholdEvidence
from vitscope.stages.outliers import OutliersResult

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


def norms(
    tau: float, evidence: ThresholdEvidence, counts: tuple[int, ...] = (5, 80, 7, 0, 1, 12)
) -> OutliersResult:
    """Norms from 1 to 1000, and this threshold."""
    edges = np.linspace(0, 3, len(counts) + 1)
    return make_outliers(
        threshold=OutlierThreshold(tau, "given", 0.1, (), ""),
        evidence=evidence,
        histogram=norm_table(edges, np.array(counts)),
    )


def evidence(low: float, high: float, **others: float) -> ThresholdEvidence:
    cuts = tuple(Alternative(name, cut, 0, 0) for name, cut in others.items())
    return ThresholdEvidence(
        NAN, NAN, NAN, 10.0, Interval(low, high, 1.0, 1000), "valley", 1.0, NAN, cuts
    )


NO_EVIDENCE = evidence(NAN, NAN)


def bar_total(figure: Figure, colour: str) -> float:
    bars = [p for p in figure.axes[0].patches if to_hex(p.get_facecolor()) == colour]
    return sum(bar.get_height() for bar in bars)  # type: ignore[attr-defined]


def texts(figure: Figure) -> str:
    return " ".join(t.get_text() for t in figure.axes[0].texts)


@pytest.mark.parametrize("gamma", [None, 0.15, 0.5])
def test_cds_histogram_counts_each_scored_feature_on_its_side_of_gamma(gamma: float | None) -> None:
    cds = random_cds()
    part = make_partition(cds, gamma=gamma, evidence=NO_EVIDENCE)
    figure = plot_cds(part)
    assert bar_total(figure, LOW) == part.low.size
    assert bar_total(figure, HIGH) == part.high.size
    assert f"γ = {part.gamma:.3f}" in texts(figure)


def vertical_lines(figure: Figure) -> list[float]:
    lines = (np.asarray(line.get_xdata()) for line in figure.axes[0].lines)
    return sorted(float(x[0]) for x in lines if x.size == 2 and x[0] == x[1])


def spans(figure: Figure) -> list[list[float]]:
    rows = [p for p in figure.axes[0].patches if to_hex(p.get_facecolor()) == INK]
    return [[p.get_x(), p.get_x() + p.get_width()] for p in rows]  # type: ignore[attr-defined]


def test_alternatives_are_drawn_where_they_differ_from_gamma() -> None:
    found = evidence(0.2, 0.45, valley=0.305, otsu=0.5, mixture=NAN, paper=0.14)
    part = make_partition(random_cds(), gamma=0.3, evidence=found)
    figure = plot_cds(part)
    assert "Otsu 0.500" in texts(figure)
    assert "paper 0.140" in texts(figure)
    assert "valley" not in texts(figure)
    assert "mixture" not in texts(figure)
    assert vertical_lines(figure) == [0.14, 0.3, 0.5]
    assert spans(figure) == [pytest.approx([0.2, 0.45])]
    assert not spans(plot_cds(replace(part, evidence=NO_EVIDENCE)))


def test_alternatives_of_tau_stand_on_the_logarithmic_axis() -> None:
    found = evidence(90.0, 120.0, valley=100.5, otsu=50.0, percentile=900.0, paper=5e6)
    figure = plot_norms(norms(100.0, found))
    assert vertical_lines(figure) == [50.0, 100.0, 900.0]
    assert "percentile 900" in texts(figure)
    assert spans(figure) == [pytest.approx([90.0, 120.0])]


def test_close_is_meant_as_the_axis_shows_it() -> None:
    figure = plot_norms(norms(3.0, evidence(NAN, NAN, valley=8.0, otsu=3.1)))
    assert vertical_lines(figure) == [3.0, 8.0]


def test_an_interval_beyond_the_axis_ends_with_it() -> None:
    figure = plot_cds(make_partition(random_cds(), gamma=0.9, evidence=evidence(0.8, 1.5)))
    assert spans(figure) == [pytest.approx([0.8, 1.0])]
    assert figure.axes[0].get_xlim() == (0.0, 1.0)


def test_without_a_score_the_cds_figure_says_so() -> None:
    assert "no feature has a score" in texts(plot_cds(make_partition(np.full(5, NAN))))


@pytest.mark.parametrize("tau", [0.5, 3.0, 10.0, 31.0, 5000.0, NAN])
def test_norm_histogram_is_coloured_up_to_tau_and_beyond(tau: float) -> None:
    outliers = norms(tau, NO_EVIDENCE)
    figure = plot_norms(outliers)
    cut = tau if np.isfinite(tau) else np.inf
    reach = {BULK: [1.0, min(cut, 1000.0)], HIGH: [max(cut, 1.0), 1000.0]}
    for colour, (left, right) in reach.items():
        drawn = [p for p in figure.axes[0].patches if to_hex(p.get_facecolor()) == colour]
        assert len(drawn) == (right > left)
        for stairs in drawn:
            data = stairs.get_data()  # type: ignore[attr-defined]
            assert data.edges[[0, -1]] == pytest.approx([left, right])
            assert set(data.values) <= {*map(float, outliers.norms.counts), FLOOR}


def test_awcds_marks_where_the_norm_passes_tau() -> None:
    x = np.arange(0.5, 100)
    none = np.zeros(100, np.int64)
    spectrum = NormSpectrum(
        x, 2 * x, x / 200, x / 250, x / 100, np.full(100, 9), none, none, np.ones(100)
    )
    assert tau_percentile(spectrum, 150.0) == pytest.approx(75)
    assert tau_percentile(spectrum, 1e4) is None
    axes = plot_awcds(spectrum, 150.0).axes[0]
    band = np.asarray(axes.collections[0].get_paths()[0].vertices)
    assert band[:, 1].max() == pytest.approx(x[-1] / 100)
    assert {tuple(np.round(v, 9)) for v in band} >= {(50.5, 50.5 / 250), (50.5, 50.5 / 100)}
    lines = axes.lines
    outliers = [line for line in lines if to_hex(line.get_color()) == HIGH]
    assert np.asarray(outliers[0].get_xdata()) == pytest.approx(x[x > 75])


def test_training_curve_shows_every_line_of_the_log() -> None:
    curve = [{"step": s, "fvu": 1 / s, "dead_share": 0.0} for s in range(1, 30)]
    upper, lower = plot_training(curve).axes
    assert np.asarray(upper.lines[0].get_ydata()) == pytest.approx([r["fvu"] for r in curve])
    assert np.asarray(lower.lines[0].get_xdata()) == pytest.approx(range(1, 30))


def test_several_runs_are_lines_of_the_share_of_scored_features() -> None:
    cds = np.array([0.01, 0.01, 0.31, NAN])
    figure = plot_cds_beside([("this", cds), ("a$1$", random_cds())])
    heights = figure.axes[0].patches[0].get_data().values  # type: ignore[attr-defined]
    np.testing.assert_allclose(heights[[0, 15]], [2 / 3, 1 / 3])
    assert heights.sum() == pytest.approx(1.0)
    spectrum = make_spectrum()
    curves = plot_awcds_beside([("this", spectrum), ("that", spectrum)]).axes[0].lines
    np.testing.assert_array_equal(curves[0].get_ydata(), spectrum.awcds)
    assert curves[0].get_linestyle() != curves[1].get_linestyle()


def test_a_runs_name_is_no_formula() -> None:
    figure = plot_cds_beside([(r"a$\frac$", random_cds())])
    assert r"a$\frac$" in inline_svg(figure, "cds", "")


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    before = dict(matplotlib.rcParams)
    plot_cds(make_partition(random_cds(), evidence=evidence(0.2, 0.4, otsu=0.6)))
    assert dict(matplotlib.rcParams) == before
