"""The entries above the cut, and the ties that pass, listed: never more than are wanted."""

# a kernel's arguments have types only at its launch
# pyright: reportMissingParameterType=false, reportOperatorIssue=false

import triton
import triton.language as tl

from vitscope.sae.kernels.candidates import list_holds, read_source, source_length
from vitscope.sae.kernels.search_slots import KEPT, PATTERN
from vitscope.sae.kernels.ties import LIMIT_FEATURE, LIMIT_TOKEN


@triton.jit
def list_kept(
    products,
    bias,
    positions,
    values,
    search,
    limits,
    kept_positions,
    kept_values,
    n_tokens,
    n_entries,
    n_keep,
    capacity,
    BLOCK: tl.constexpr,
):
    """Write position and value of every kept entry, in any order.

    Grid: any number of programs. Arguments as of
    :func:`~vitscope.sae.kernels.threshold_search.count_digits`, and:

    Args:
        limits: which ties pass.
        kept_positions: ``[n_keep]``, feature · B + token; what is not written keeps its value.
        kept_values: ``[n_keep]``, likewise.
    """
    held = list_holds(search, n_keep, capacity)
    length = source_length(search, n_entries, n_keep, capacity)
    cut = tl.load(search + PATTERN).to(tl.float32, bitcast=True)
    limit_token = tl.load(limits + LIMIT_TOKEN)
    limit_feature = tl.load(limits + LIMIT_FEATURE)
    for start in range(tl.program_id(0) * BLOCK, length, tl.num_programs(0) * BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < length
        place, value = read_source(held, products, bias, positions, values, at, inside, n_tokens)
        feature, token = place // n_tokens, place % n_tokens
        early = (token < limit_token) | ((token == limit_token) & (feature <= limit_feature))
        keep = inside & ((value > cut) | ((value == cut) & early))
        n = tl.sum(keep.to(tl.int32), 0)
        if n > 0:
            first = tl.atomic_add(search + KEPT, n)
            slot = first + tl.cumsum(keep.to(tl.int32), 0) - 1
            tl.store(kept_positions + slot, place, mask=keep & (slot < n_keep))
            tl.store(kept_values + slot, value, mask=keep & (slot < n_keep))
