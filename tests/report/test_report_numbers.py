"""How numbers are written, and what the tables sum up."""

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.report.synthetic_report import make_data

from vitscope.report.groups import group_profiles
from vitscope.report.numbers import decimal, duration, p_value, percent, sentence, whole, with_error
from vitscope.report.study import study_toml

NAN = float("nan")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (whole(17329), "17,329"),
        (whole(NAN), "–"),
        (decimal(0.14159), "0.142"),
        (decimal(float("inf")), "–"),
        (with_error(0.5, 0.01, 2), "0.50 ± 0.01"),
        (with_error(0.5, NAN, 2), "0.50"),
        (with_error(NAN, 0.1, 2), "–"),
        (percent(0.0187), "1.87 %"),
        (percent(1.0), "100 %"),
        (percent(0.0), "0 %"),
        (percent(3e-6), "< 0.001 %"),
        (percent(NAN), "–"),
        (p_value(0.32), "= 0.32"),
        (p_value(0.0050000001), "= 0.005"),
        (p_value(1e-4), "≤ 0.0001"),
        (p_value(NAN), "= –"),
        (sentence("the valley of γ"), "The valley of γ"),
        (sentence("γ = 0.1"), "γ = 0.1"),
        (sentence(""), ""),
        (duration(4.24), "4.2 s"),
        (duration(59.97), "1 min 00 s"),
        (duration(185), "3 min 05 s"),
        (duration(7799.6), "2 h 10 min"),
        (duration(NAN), "–"),
    ],
)
def test_numbers_are_written_for_readers(written: str, expected: str) -> None:
    assert written == expected


def test_unset_keys_and_paths_become_toml() -> None:
    study = {
        "seed": 3,
        "a": {
            "x": None,
            "y": [1, None],
            "path": Path("x/y"),
            "p": 1.5,
            "deep": {"z": None, "b": True},
        },
    }
    text = study_toml(study)
    assert tomllib.loads(text) == {
        "seed": 3,
        "a": {"y": [1], "p": 1.5, "deep": {"b": True}, "path": "x/y"},
    }


def test_group_rows_are_medians_and_sums_over_their_own_features() -> None:
    data = make_data()
    for row, members in zip(
        group_profiles(data), (data.partition.low, data.partition.high), strict=True
    ):
        assert row.n == members.size > 0
        assert row.cds == pytest.approx(np.median(data.scores.cds[members]))
        assert row.on_outliers == pytest.approx(data.columns["mean_on_outlier"][members].sum())
        assert row.on_normal == pytest.approx(data.columns["mean_on_normal"][members].sum())


def test_group_rows_of_an_empty_group_are_undefined() -> None:
    part = make_data().partition
    none = np.zeros(0, np.int64)
    emptied = replace(part, gamma=0.9, source="given", high=none)
    high = group_profiles(make_data(partition=emptied))[1]
    assert high.n == 0
    assert np.isnan([high.cds, high.support, high.density, high.on_outliers]).all()
