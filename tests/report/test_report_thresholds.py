"""What the page says of γ, τ and the tokens without an awCDS."""

from dataclasses import replace

import numpy as np
import pytest
from tests.report.page_reader import read_page
from tests.report.synthetic_report import make_data, make_evidence, make_spectrum

from vitscope.report.page import render_report
from vitscope.report.spectrum import describe_coverage
from vitscope.report.thresholds import describe_tests, gamma_view, tau_view
from vitscope.scope.bootstrap import Interval
from vitscope.scope.evidence import Alternative
from vitscope.scope.outliers import OutlierThreshold

NAN = float("nan")


@pytest.mark.parametrize(
    ("dip", "silverman", "said"),
    [
        (0.001, 0.005, "a single mode is unlikely"),
        (0.5, 0.3, "the cut is then a convention"),
        (0.5, 0.005, "the dip test weighs a mode by its mass"),
        (0.001, 0.3, "Silverman's is the more cautious"),
        (NAN, 0.005, "dip test says p = –"),
    ],
)
def test_both_tests_are_named_and_weighed(dip: float, silverman: float, said: str) -> None:
    text = describe_tests(make_evidence(dip_p=dip, silverman_p=silverman))
    assert said in text
    assert ("unlikely" in text) == (max(dip, silverman) < 0.05)
    assert text.endswith(".")
    data = make_data(gamma_evidence=make_evidence(dip_p=dip, silverman_p=silverman))
    assert said in read_page(render_report(data)).text


def test_the_runs_own_threshold_comes_first_and_alternatives_follow_once() -> None:
    data = make_data()
    own, *others = gamma_view(data).rows
    assert own.used
    assert own.method == "valley of the density"
    assert (own.below, own.above) == (
        str(data.partition.low.size),
        str(data.partition.high.size),
    )
    assert [row.method.split(":")[0] for row in others] == [
        "Otsu",
        "two normal components, equally likely",
    ]
    assert (others[0].threshold, others[0].below, others[0].above) == ("0.25", "203", "67")
    assert (others[1].threshold, others[1].below, others[1].above) == ("–", "–", "–")


def test_a_threshold_of_the_paper_is_not_listed_twice() -> None:
    cuts = (Alternative("valley", 70.0, 8900, 100), Alternative("paper", 60.0, 8820, 180))
    tau = OutlierThreshold(60.0, "zoo", 0.02, (20.0,), "τ = 60 is the paper's (Table 5)")
    data = make_data(tau=tau, tau_evidence=make_evidence(alternatives=cuts))
    rows = tau_view(data).rows
    assert [(row.method, row.used) for row in rows] == [
        ("the paper's, for this model and block", True),
        ("valley of the density", False),
    ]
    assert (rows[0].below, rows[0].above) == ("8,820", "180")


def test_dependent_tokens_are_said_to_count_as_fewer() -> None:
    assert "take the 9,000 tokens for 260" in tau_view(make_data()).tests
    alone = make_data(tau_evidence=make_evidence(n_effective=9000.0))
    assert "depend on one another" not in tau_view(alone).tests


def test_intervals_and_sizes_are_on_the_page() -> None:
    wide = make_evidence(interval=Interval(0.11, 0.39, 1.0, 1000), changed=0.37)
    text = read_page(render_report(make_data(gamma_evidence=wide))).text
    assert "between 0.11 and 0.39" in text
    assert "The interval is wide" in text
    assert "number of high-CDS features changes by 37 %" in text
    assert "between 50 and 70" in text
    assert "Otsu: most variance between the sides" in text


def test_tokens_without_awcds_are_counted_on_the_page() -> None:
    spectrum = make_spectrum()
    assert "Each of the 5,000 tokens has an awCDS" in describe_coverage(spectrum)
    silent, unscored = spectrum.n_silent.copy(), spectrum.n_unscored.copy()
    silent[0], unscored[0], unscored[-1] = 30, 20, 25
    shares = np.where(np.arange(50) == 49, 0.4, 0.9)
    some = replace(spectrum, n_silent=silent, n_unscored=unscored, scored_share=shares)
    text = describe_coverage(some)
    assert "45 (0.9 %) have active features of which none has a score" in text
    assert "30 (0.6 %) have no active feature" in text
    assert "bin of highest norms they are 25 %" in text
    assert "Between 40 % and 90 % of a bin's activation" in text
    assert text in read_page(render_report(make_data(spectrum=some))).text
