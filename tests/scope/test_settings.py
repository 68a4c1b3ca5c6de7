"""Shifts and tokens as they are typed and as a study has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitscope.errors import ConfigError
from vitscope.scope.settings import InstabilitySettings, parse_shifts, parse_tokens
from vitscope.scope.views import compared_overlaps


@pytest.mark.parametrize(
    ("text", "shifts"),
    [
        ("1-6", (1, 2, 3, 4, 5, 6)), ("3", (3,)), ("1,3,5", (1, 3, 5)), ("5,1,3,1", (1, 3, 5)),
        ("1-3,6", (1, 2, 3, 6)), (" 2 - 3 , 5 ", (2, 3, 5)), ("4-4", (4,)),
    ],
)  # fmt: skip
def test_shifts_are_ranges_and_lists(text: str, shifts: tuple[int, ...]) -> None:
    assert parse_shifts(text) == shifts


@pytest.mark.parametrize("text", ["", "six", "6-1", "0-3", "0", "-3", "1-", "1,,2", "1.5", "1 2"])
def test_other_shifts_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--shifts '.*': give a range as 1-6, or a list"):
        parse_shifts(text)


def test_tokens_are_a_number_or_all() -> None:
    assert parse_tokens("all") == 0
    assert parse_tokens("16") == 16
    for text in ("", "0", "-1", "some", "1.5"):
        with pytest.raises(ConfigError, match=rf"--tokens '{text}': give a number from 1, or all"):
            parse_tokens(text)


@given(st.lists(st.integers(1, 30)))
def test_the_order_of_shifts_is_no_setting(shifts: list[int]) -> None:
    found = InstabilitySettings.parse({"shifts": shifts}, source="study").shifts
    assert found == tuple(sorted(set(shifts)))


def test_a_shift_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"study: shifts.0: input should be greater than"):
        InstabilitySettings.parse({"shifts": [0]}, source="study")


def test_the_studys_own_shift_is_always_compared() -> None:
    def compared(own: int, *shifts: int) -> list[int]:
        overlaps = compared_overlaps(8, own, InstabilitySettings(shifts=shifts))
        return [overlap.shift for overlap in overlaps]

    assert compared(2) == [2]
    assert compared(2, 4, 1) == [1, 2, 4]
    assert compared(2, 2, 6) == [2, 6]
    with pytest.raises(ConfigError, match=r"instability.shifts: 7 leaves no overlap .* use 1 to 6"):
        compared(1, 3, 7)
