"""The exact n-th largest of many positive numbers, found by counting alone.

Counts of disjoint parts add up: with a sum over ranks, every rank finds the cut of all numbers
together without any of them leaving its rank.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vitscope.axes import Float, Int64
from vitscope.distributed import Ranks

DIGIT_BITS = 11
"""Bits settled per round: three rounds for float32, with counts that fit the first-level cache."""

SAME_SIZE = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Cut:
    """Where the ``n`` largest numbers end.

    Attributes:
        value: the n-th largest.
        n_kept_ties: how many of those equal to ``value`` belong to the n largest.
        n_ties: how many are equal to it.
    """

    value: float
    n_kept_ties: int
    n_ties: int


def find_cut(positive: Float[Tensor, "c"], n: int, ranks: Ranks) -> Cut | None:
    """Return the cut of the ``n`` ≥ 1 largest of all ranks' numbers; None where fewer exist.

    The bit patterns of positive floats, read as integers, are ordered as the floats are. From the
    highest bits down, each round counts the numbers by their next digit and settles that digit of
    the n-th largest.

    Args:
        positive: this rank's numbers, all above zero, none NaN; as many as it has.
        n: how many to keep, over all ranks.
        ranks: who else holds numbers.
    """
    bits = positive.view(SAME_SIZE[positive.element_size()])
    undecided = 8 * positive.element_size() - 1  # the sign bit is zero
    pattern, wanted, n_ties = 0, n, 0
    while undecided:
        width = min(DIGIT_BITS, undecided)
        undecided -= width
        digits = (bits >> undecided) & ((1 << width) - 1)
        counts = ranks.sum(torch.bincount(digits, minlength=1 << width))
        from_top = counts.flip(0).cumsum(0)
        if int(from_top[-1]) < wanted:  # in the first round alone
            return None
        digit, above, n_ties = _digit_of_rank(counts, from_top, wanted)
        wanted -= above
        pattern = (pattern << width) | digit
        bits = bits[digits == digit]
    return Cut(_float_of(pattern, positive.dtype), wanted, n_ties)


def _digit_of_rank(
    counts: Int64[Tensor, "D"], from_top: Int64[Tensor, "D"], wanted: int
) -> tuple[int, int, int]:
    """Return the digit of the ``wanted``-th largest, how many have a larger one, how many it."""
    place = int(torch.searchsorted(from_top, wanted))
    digit = counts.numel() - 1 - place
    here = int(counts[digit])
    return digit, int(from_top[place]) - here, here


def _float_of(pattern: int, dtype: torch.dtype) -> float:
    integer = SAME_SIZE[dtype.itemsize]
    value = torch.tensor([pattern], dtype=integer).view(dtype).item()
    assert not math.isnan(value)
    return value
