"""The section on removal: its lines, intervals over seeds, what is said where nothing matches."""

import re
from dataclasses import astuple

import numpy as np
import pytest
from scipy import stats
from tests.report.made_up_run import NAN, NO_MATCH, REMOVED, PageOf, make_task

from vitscope.figures.removal import probe_change, probe_value, removal_lines
from vitscope.intervals import student_interval


def cells(html: str, caption: str) -> list[list[str]]:
    body = html[html.index(f'aria-describedby="{caption}"') :].split("</table>", maxsplit=1)[0]
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", body.split("<tbody>")[1], re.DOTALL)
    found = (re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in rows)
    return [[" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in row] for row in found]


def test_intervals_over_searches_are_students() -> None:
    values = [0.71, 0.74, 0.69, 0.75]
    found = student_interval(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high))
    assert student_interval([0.5, NAN]).mean == 0.5
    assert np.isnan(student_interval([0.5, NAN]).low)
    assert np.isnan(student_interval([]).mean)


def test_controls_are_one_line_with_an_interval_over_draws() -> None:
    every, depth = removal_lines(REMOVED), make_task()
    assert [line.name.split(",")[0] for line in every] == [
        "original", "high-CDS removed", "random", "low-CDS removed", "random",
    ]  # fmt: skip
    found = probe_value(depth, every[2])
    expected = student_interval([0.65, 0.85])  # the mean over searches of each draw first
    assert astuple(found) == pytest.approx(astuple(expected))
    assert probe_value(depth, every[0]) == student_interval([0.5, 0.52])
    assert every[4].variants == () and every[4].why_none == NO_MATCH


def test_changes_are_paired_by_search() -> None:
    _, high, random, low, none = removal_lines(REMOVED)
    found = probe_change(make_task(high_removed=(0.49, 0.50)), high)
    assert astuple(found) == pytest.approx(astuple(student_interval([-0.01, -0.02])))
    drawn = probe_change(make_task(), random)
    assert astuple(drawn) == pytest.approx(astuple(student_interval([0.14, 0.34])))
    assert np.isnan(probe_change(make_task(), low).mean)
    assert np.isnan(probe_change(make_task(), none).mean)
    unpaired = probe_change(make_task(high_removed=(0.49,)), high)
    assert unpaired.mean == pytest.approx(-0.02) and np.isnan(unpaired.low)
    assert np.isnan(probe_value(make_task(high_removed=(0.49, NAN)), high).low)


def test_the_table_writes_figures_changes_and_why_there_is_none(page_of: PageOf) -> None:
    shown = page_of("usual")
    original, high, random, low, none = cells(shown.html, "caption-removal-1")
    assert original[1:] == ["–", "–", "0.510 [0.383, 0.637]"]
    assert high[1] == "40" and re.sub(r"\s+", " ", high[2]) == "5 % 10 %"
    assert re.sub(r"\s+", " ", high[3]) == "0.490 −0.010"
    assert random[0].endswith("mean of 2 draws") and random[3].startswith("0.750 [")
    assert low[3] == "–", "every head diverged"
    assert none[1] == NO_MATCH and len(none) == 2
    assert "left out: 3 of depth" in shown.text and "as mean of 2 whole searches" in shown.text
    assert "Depth: 1,200 training and 654 validation images" in shown.text
    by_text = cells(shown.html, "caption-removal-2")
    assert re.sub(r"\s+", " ", by_text[1][3]) == "0.800 −0.100"
    assert by_text[1][5:] == ["12", "8", "3"] and by_text[2][5:] == ["12.0", "8.0", "3.0"]


def test_only_what_has_run_is_shown(page_of: PageOf) -> None:
    assert "What each kind of feature does" not in page_of("undefined").html
    probes = page_of("much").html
    assert "caption-removal-1" in probes and "caption-removal-2" not in probes
    assert "reliability-title" not in probes
    alone = page_of("little").html
    assert "caption-removal-1" not in alone and "reliability-title" in alone
    assert cells(alone, "caption-removal-2")[1][1] == "40", "what was removed is said here then"
