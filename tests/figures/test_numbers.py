"""How numbers are written."""

import pytest

from vitscope.figures.numbers import (
    decimal,
    duration,
    p_value,
    percent,
    sentence,
    whole,
    with_error,
    with_interval,
)

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
        (with_interval(5.178, 4.966, 5.4, 2), "5.18 [4.97, 5.40]"),
        (with_interval(5.178, NAN, NAN, 2), "5.18"),
        (with_interval(NAN, 1.0, 2.0), "–"),
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
