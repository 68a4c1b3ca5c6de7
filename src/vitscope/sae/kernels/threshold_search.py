"""The exact n-th largest entry, settled digit by digit from counts, without the host.

The same search as :func:`vitscope.sae.cut.find_cut`: bit patterns of positive floats are ordered
as the floats are. Counts are sums of whole numbers, so that the order in which programs add them
does not show.
"""

# a kernel's arguments have types only at its launch
# pyright: reportMissingParameterType=false, reportOperatorIssue=false

import triton
import triton.language as tl

from vitscope.sae.kernels.candidates import list_holds, read_source, source_length
from vitscope.sae.kernels.search_slots import FEWER, N_TIES, PATTERN, WANTED

DIGIT_BITS = tl.constexpr(8)
BINS = tl.constexpr(256)
"""Two to the power of DIGIT_BITS."""

SHIFTS = (24, 16, 8, 0)
"""Bits below the digit of each round: four digits make a float32."""


@triton.jit
def count_digits(
    products,
    bias,
    positions,
    values,
    search,
    counts,
    n_tokens,
    n_entries,
    n_keep,
    capacity,
    SHIFT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add to ``counts`` how many entries have each next digit, among those with the settled bits.

    Grid: any number of programs; they share the source's blocks.

    Args:
        products: ``[m, B]``; with ``bias`` it is the source where the list does not hold.
        bias: ``[m]``.
        positions: of the list.
        values: of the list.
        search: slot PATTERN is read.
        counts: ``[BINS]``, zero before.
        n_tokens: B.
        n_entries: m · B.
        n_keep: entries wanted in the first round.
        capacity: of the list.
        SHIFT: bits below the digit.
        BLOCK: entries per program and turn.
    """
    held = list_holds(search, n_keep, capacity)
    length = source_length(search, n_entries, n_keep, capacity)
    pattern = tl.load(search + PATTERN)
    found = tl.zeros([BINS], dtype=tl.int32)
    for start in range(tl.program_id(0) * BLOCK, length, tl.num_programs(0) * BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < length
        _, value = read_source(held, products, bias, positions, values, at, inside, n_tokens)
        bits = value.to(tl.int32, bitcast=True)
        same = inside & (value > 0)
        if SHIFT + DIGIT_BITS < 32:
            same = same & ((bits >> (SHIFT + DIGIT_BITS)) == pattern)
        found += tl.histogram((bits >> SHIFT) & (BINS - 1), BINS, mask=same)
    bins = tl.arange(0, BINS)
    tl.atomic_add(counts + bins, found, mask=found > 0)


@triton.jit
def settle_digit(counts, search):
    """Settle the cut's next digit from ``counts``, and clear them. Grid: 1, one warp."""
    bins = tl.arange(0, BINS)
    found = tl.load(counts + bins)
    pattern, wanted = tl.load(search + PATTERN), tl.load(search + WANTED)
    fewer = tl.load(search + FEWER)
    from_here = tl.cumsum(found, 0, reverse=True)
    digit = tl.sum((from_here >= wanted).to(tl.int32), 0) - 1  # counts from here only fall
    above = tl.sum(tl.where(bins > digit, found, 0), 0)
    ties = tl.sum(tl.where(bins == digit, found, 0), 0)
    none = (digit < 0) | (fewer != 0)
    tl.store(search + PATTERN, tl.where(none, 0, (pattern << DIGIT_BITS) | digit))
    tl.store(search + WANTED, tl.where(none, 0, wanted - above))
    tl.store(search + N_TIES, tl.where(none, 0, ties))
    tl.store(search + FEWER, none.to(tl.int32))
    tl.store(counts + bins, tl.zeros([BINS], dtype=tl.int32))
