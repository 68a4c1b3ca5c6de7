"""Confidence intervals against SciPy's."""

import math

import numpy as np
import pytest
from scipy import stats

from vitscope.intervals import jackknife_interval, student_interval, wilson_interval


def test_the_jackknife_of_a_mean_is_students_interval() -> None:
    values = np.random.default_rng(0).normal(3, 2, 40)
    left_out = np.asarray([np.delete(values, i).mean() for i in range(values.size)])
    expected = stats.t.interval(0.95, values.size - 1, values.mean(), stats.sem(values))
    assert jackknife_interval(float(values.mean()), left_out) == pytest.approx(expected)
    student = student_interval(values.tolist())
    assert (student.low, student.high) == pytest.approx(expected)
    for too_little in ([1.0], [1.0, math.nan, 2.0]):
        assert np.isnan(jackknife_interval(1.0, np.asarray(too_little))).all()


def test_a_proportions_interval_is_wilsons() -> None:
    expected = stats.binomtest(40, 50).proportion_ci(method="wilson")
    assert wilson_interval(0.8, 50) == pytest.approx((expected.low, expected.high))
    assert np.isnan(wilson_interval(0.8, 0)).all()
