"""A bound holds or fails, and nothing in between: NaN, null and NumPy's own booleans included."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitscope.selfcheck.checks import Check, at_least, at_most, failures, reported, within
from vitscope.selfcheck.selfcheck import SelfcheckReport

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)


@pytest.mark.parametrize("nothing", [None, math.nan, np.float64("nan"), np.float32("nan")])
def test_what_is_not_a_number_never_passes(nothing: float | None) -> None:
    checks = [
        within("a", nothing, 0.0, math.inf),
        at_least("b", nothing, -math.inf),
        at_most("c", nothing, math.inf),
    ]
    assert failures(checks) == checks
    assert not SelfcheckReport({"oracle": checks}).passed


@pytest.mark.parametrize("nothing", [math.nan, np.float64("nan")])
def test_a_truth_that_is_not_a_number_never_passes(nothing: float) -> None:
    assert within("a", 0.0, nothing, 1.0).passed is False


def test_a_tolerance_or_bound_that_is_not_a_number_never_passes() -> None:
    assert within("a", 0.0, 0.0, math.nan).passed is False
    assert at_least("b", 1.0, math.nan).passed is False
    assert at_most("c", 1.0, math.nan).passed is False


@given(measured=NUMBERS, expected=NUMBERS, tolerance=st.floats(0, 1e6))
def test_within_is_a_distance(measured: float, expected: float, tolerance: float) -> None:
    passed = within("a", measured, expected, tolerance).passed
    assert passed is (expected - tolerance <= measured <= expected + tolerance) or math.isclose(
        abs(measured - expected), tolerance, rel_tol=1e-6
    )


@given(measured=NUMBERS, bound=NUMBERS)
def test_at_least_and_at_most_are_opposite(measured: float, bound: float) -> None:
    assert at_least("a", measured, bound).passed is (measured >= bound)
    assert at_most("a", measured, bound).passed is (measured <= bound)
    assert at_most("a", -measured, -bound).passed is at_least("a", measured, bound).passed


@pytest.mark.parametrize("number", [np.float64, np.float32, float])
def test_numpy_figures_fail_as_plain_ones_do(number: type) -> None:
    wrong = [
        within("a", number(1), number(2), number(0.5)),
        at_least("b", number(1), number(2)),
        at_most("c", number(2), number(1)),
    ]
    assert all(check.passed is False for check in wrong)
    for check in wrong:
        assert not SelfcheckReport({"oracle": [check]}).passed, check


def test_a_figure_without_a_bound_neither_passes_nor_fails() -> None:
    free = [reported("a", math.nan), reported("b", 3.0, 0.0)]
    assert failures(free) == []
    assert SelfcheckReport({"stress": free}).passed


def test_one_failure_among_many_runs_fails_the_whole() -> None:
    good, bad = at_most("a", 0, 1), at_most("b", 2, 1)
    assert SelfcheckReport({"oracle": [good], "trained": [good]}).passed
    assert not SelfcheckReport({"oracle": [good], "trained": [good, bad]}).passed


def test_checks_are_plain_json() -> None:
    checks = [
        within("a", np.float64("nan"), np.float64(1), 0.1),
        reported("b", 2.0),
        at_least("c", np.float64(1), 0),
    ]
    text = json.dumps([check.to_json() for check in checks], allow_nan=False)
    assert json.loads(text) == [
        {"name": "a", "measured": None, "expected": 1.0, "bound": "± 0.1", "passed": False},
        {"name": "b", "measured": 2.0, "expected": None, "bound": "reported", "passed": None},
        {"name": "c", "measured": 1.0, "expected": None, "bound": "≥ 0", "passed": True},
    ]
    assert checks[1] == Check("b", 2.0, None, "reported", None)
