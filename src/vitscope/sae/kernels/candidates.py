"""Entries that reach a bound, listed; and the list, or the whole buffer, read as one."""

# a kernel's arguments have types only at its launch
# pyright: reportMissingParameterType=false, reportOperatorIssue=false

import triton
import triton.language as tl

from vitscope.sae.kernels.search_slots import COUNT, NAN

MAX_BLOCK = 4096
"""Tokens of a feature that one program reads: few programs, hence few turns at the counter."""

NUM_WARPS = 8


@triton.jit
def list_candidates(
    products,
    bias,
    bound,
    search,
    positions,
    values,
    n_tokens,
    capacity,
    BLOCK: tl.constexpr,
):
    """List the positive entries of ``products + bias`` that reach ``bound``, in any order.

    Entries beyond ``capacity`` are counted and not written, so that the count tells. Grid: m
    features by ⌈B / BLOCK⌉.

    Args:
        products: ``[m, B]``.
        bias: ``[m]``.
        bound: one number.
        search: slots COUNT and NAN are written.
        positions: ``[capacity]``, feature · B + token.
        values: ``[capacity]``.
        n_tokens: B.
        capacity: length of the list.
        BLOCK: tokens per program, a power of two.
    """
    feature = tl.program_id(0)
    tokens = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = tokens < n_tokens
    at = feature * n_tokens + tokens
    found = tl.load(products + at, mask=inside, other=float("-inf"))
    pre = found + tl.load(bias + feature)
    n_nan = tl.sum((inside & (pre != pre)).to(tl.int32), 0)  # noqa: PLR0124
    if n_nan > 0:
        tl.atomic_max(search + NAN, 1)
    reached = inside & (pre >= tl.load(bound)) & (pre > 0)
    n_reached = tl.sum(reached.to(tl.int32), 0)
    if n_reached > 0:
        first = tl.atomic_add(search + COUNT, n_reached)
        place = first + tl.cumsum(reached.to(tl.int32), 0) - 1
        fits = reached & (place < capacity)
        tl.store(positions + place, at, mask=fits)
        tl.store(values + place, pre, mask=fits)


@triton.jit
def list_holds(search, n_keep, capacity):
    """Tell whether the list has all candidates and enough of them, so that it stands for all."""
    count = tl.load(search + COUNT)
    return (count >= n_keep) & (count <= capacity)


@triton.jit
def source_length(search, n_entries, n_keep, capacity):
    """Return how many entries :func:`read_source` has: the list's if it holds, or all."""
    held = list_holds(search, n_keep, capacity)
    return tl.where(held, tl.load(search + COUNT), n_entries)


@triton.jit
def read_source(held, products, bias, positions, values, at, inside, n_tokens):
    """Return positions and values of the source's entries ``at``; zero outside."""
    if held:
        place = tl.load(positions + at, mask=inside, other=0)
        value = tl.load(values + at, mask=inside, other=0.0)
    else:
        place = at
        found = tl.load(products + at, mask=inside, other=0.0)
        value = found + tl.load(bias + at // n_tokens, mask=inside, other=0.0)
    return place, value
