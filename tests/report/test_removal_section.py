"""The section on removal: lines, intervals over seeds, what is said where nothing matches."""

import re
from dataclasses import astuple, replace

import numpy as np
import pytest
from scipy import stats
from tests.report.page_reader import read_page
from tests.report.synthetic_report import make_data

from vitscope.figures.reliability import FEWEST, plot_reliability
from vitscope.intervals import student_interval
from vitscope.probes.calibration import Reliability, reliability
from vitscope.probes.zero_shot import ZeroShotSummary
from vitscope.report.data import ReportData
from vitscope.report.page import render_report
from vitscope.report.removal import (
    RemovalFigures,
    TaskFigures,
    VariantGroup,
    ZeroShotFigures,
    change_of_task,
    lines,
    of_task,
    reliability_lines,
)

NAN = float("nan")
NO_MATCH = "no matched control exists, only 30 features lie outside"
STUDY = {"probes": {"trials": 5, "epochs": 100, "seeds": 2, "keep_error": True}}

GROUPS = (
    VariantGroup("high-removed", "high", 40, 0.05, 0.1, False),
    VariantGroup("random-high-0", "high", 41, 0.051, 0.1, True),
    VariantGroup("random-high-1", "high", 39, 0.052, 0.1, True),
    VariantGroup("low-removed", "low", 200, 0.9, 0.8, False),
)
DEPTH = TaskFigures(
    "depth", "rmse", False, 1200, 654,
    {
        "original": (0.50, 0.52), "high-removed": (0.49, NAN), "random-high-0": (0.6, 0.7),
        "random-high-1": (0.8, 0.9), "low-removed": (),
    },
    3,
)  # fmt: skip


def summary(variant: str, confidence: float) -> ZeroShotSummary:
    sure = np.full(50, confidence)
    return ZeroShotSummary(variant, 0.7, 0.9, confidence, reliability(sure, sure > 0.8), 12, 8, 3)


BY_TEXT = ZeroShotFigures(
    50,
    10,
    {
        g: summary(g, 0.9 - 0.1 * i)
        for i, g in enumerate(["original", *(g.variant for g in GROUPS)])
    },
)
FIGURES = RemovalFigures(GROUPS, {"low": NO_MATCH}, (DEPTH,), BY_TEXT)


def page(figures: RemovalFigures | None) -> str:
    data: ReportData = make_data(study={**make_data().study, **STUDY}, removal=figures)
    return render_report(data)


def cells(html: str, caption: str) -> list[list[str]]:
    body = html[html.index(f'aria-describedby="{caption}"') :].split("</table>", maxsplit=1)[0]
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", body.split("<tbody>")[1], re.DOTALL)
    found = (re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in rows)
    return [[" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in row] for row in found]


def test_intervals_over_seeds_are_students() -> None:
    values = [0.71, 0.74, 0.69, 0.75]
    found = student_interval(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high))
    assert student_interval([0.5, NAN]).mean == 0.5 and np.isnan(student_interval([0.5, NAN]).low)
    assert np.isnan(student_interval([]).mean)


def test_controls_are_one_line_with_an_interval_over_draws() -> None:
    every = lines(FIGURES)
    assert [line.name.split(",")[0] for line in every] == [
        "original", "high-CDS removed", "random", "low-CDS removed", "random",
    ]  # fmt: skip
    found = of_task(DEPTH, every[2])
    expected = student_interval([0.65, 0.85])  # the mean over searches of each draw first
    assert astuple(found) == pytest.approx(astuple(expected))
    assert of_task(DEPTH, every[0]) == student_interval([0.5, 0.52])
    assert every[4].variants == () and every[4].why_none == NO_MATCH


def test_changes_are_paired_by_search() -> None:
    original, high, random, low, _ = lines(FIGURES)
    task = replace(DEPTH, values={**DEPTH.values, "high-removed": (0.49, 0.50)})
    found = change_of_task(task, high, original)
    assert astuple(found) == pytest.approx(astuple(student_interval([-0.01, -0.02])))
    drawn = change_of_task(DEPTH, random, original)
    assert astuple(drawn) == pytest.approx(astuple(student_interval([0.14, 0.34])))
    assert np.isnan(change_of_task(DEPTH, low, original).mean)
    short = replace(DEPTH, values={**DEPTH.values, "high-removed": (0.49,)})
    unpaired = change_of_task(short, high, original)
    assert unpaired.mean == pytest.approx(-0.02) and np.isnan(unpaired.low)


def test_the_table_writes_figures_changes_and_why_there_is_none() -> None:
    html = page(FIGURES)
    original, high, random, low, none = cells(html, "caption-removal-1")
    assert original[1:] == ["–", "–", "0.510 [0.383, 0.637]"]
    assert high[1] == "40" and re.sub(r"\s+", " ", high[2]) == "5 % 10 %"
    assert re.sub(r"\s+", " ", high[3]) == "0.490 −0.010"
    assert random[0].endswith("mean of 2 draws") and random[3].startswith("0.750 [")
    assert low[3] == "–", "every head diverged"
    assert none[1] == NO_MATCH and len(none) == 2
    text = read_page(html).text
    assert "left out: 3 of depth" in text and "as mean of 2 whole searches" in text
    by_text = cells(html, "caption-removal-2")
    assert re.sub(r"\s+", " ", by_text[1][3]) == "0.800 −0.100"
    assert by_text[1][5:] == ["12", "8", "3"]


def test_only_what_has_run_is_shown() -> None:
    assert "What each kind of feature does" not in page(None)
    probes = page(replace(FIGURES, zero_shot=None))
    assert "caption-removal-1" in probes and "caption-removal-2" not in probes
    assert "reliability-title" not in probes
    alone = page(replace(FIGURES, tasks=()))
    assert "caption-removal-1" not in alone and "reliability-title" in alone
    assert cells(alone, "caption-removal-2")[1][1] == "40", "what was removed is said here then"


def test_points_of_few_predictions_are_not_drawn() -> None:
    random = np.random.default_rng(0)
    sure = np.concatenate([np.full(FEWEST - 1, 0.1), np.full(FEWEST, 0.5), np.full(200, 0.9)])
    diagram = reliability(sure, random.random(sure.size) < sure, bins=10)
    figure = plot_reliability([("original", "", diagram), ("high", "high", diagram)])
    ax, below = figure.axes
    points = np.asarray(ax.lines[1].get_xdata())
    np.testing.assert_allclose(points, [0.5, 0.9])
    shares = below.patches[0].get_data().values  # type: ignore[attr-defined]
    assert shares.sum() == pytest.approx(1) and shares[0] == pytest.approx((FEWEST - 1) / sure.size)
    empty = Reliability((0.0, 1.0), (0,), (NAN,), (NAN,), NAN)
    texts = [text.get_text() for text in plot_reliability([("none", "", empty)]).axes[0].texts]
    assert texts == ["nothing was predicted"]


def test_diagrams_are_those_of_the_groups_not_of_controls() -> None:
    assert [name for name, *_ in reliability_lines(FIGURES)] == [
        "original", "high-CDS removed", "low-CDS removed",
    ]  # fmt: skip
