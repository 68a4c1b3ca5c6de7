"""Which entries equal to the cut are kept: those of the lowest tokens, then of the lowest features.

Two limits say it: tokens before the limit keep all their ties, the token at it those of features
up to a limit of their own.
"""

# a kernel's arguments have types only at its launch
# pyright: reportMissingParameterType=false, reportOperatorIssue=false

import triton
import triton.language as tl

from vitscope.sae.kernels.candidates import list_holds, read_source, source_length
from vitscope.sae.kernels.search_slots import N_TIES, PATTERN, WANTED

LIMIT_TOKEN = tl.constexpr(0)
LIMIT_FEATURE = tl.constexpr(1)


@triton.jit
def count_ties(
    products,
    bias,
    positions,
    values,
    search,
    of_token,
    n_tokens,
    n_entries,
    n_keep,
    capacity,
    BLOCK: tl.constexpr,
):
    """Add to ``of_token`` each token's entries equal to the cut, where not all of them are kept.

    Grid: any number of programs. Arguments as of
    :func:`~vitscope.sae.kernels.threshold_search.count_digits`; ``of_token`` is ``[B]``, zero
    before.
    """
    held = list_holds(search, n_keep, capacity)
    length = source_length(search, n_entries, n_keep, capacity)
    surplus = tl.load(search + N_TIES) > tl.load(search + WANTED)
    cut = tl.load(search + PATTERN).to(tl.float32, bitcast=True)
    stop = tl.where(surplus, length, 0)
    for start in range(tl.program_id(0) * BLOCK, stop, tl.num_programs(0) * BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < length
        place, value = read_source(held, products, bias, positions, values, at, inside, n_tokens)
        tl.atomic_add(of_token + place % n_tokens, 1, mask=inside & (value == cut))


@triton.jit
def limit_ties(
    products,
    bias,
    search,
    of_token,
    limits,
    n_tokens,
    n_features,
    BLOCK: tl.constexpr,
):
    """Find the limits that let as many ties pass as are wanted. Grid: 1.

    Args:
        products: ``[m, B]``.
        bias: ``[m]``.
        search: slots PATTERN, WANTED and N_TIES are read.
        of_token: ties of each token, where there are more than wanted.
        limits: LIMIT_TOKEN and LIMIT_FEATURE are written.
        n_tokens: B.
        n_features: m.
        BLOCK: tokens or features per turn.
    """
    wanted = tl.load(search + WANTED)
    surplus = tl.load(search + N_TIES) > wanted
    cut = tl.load(search + PATTERN).to(tl.float32, bitcast=True)
    lanes = tl.arange(0, BLOCK)
    n_whole = tl.zeros([], dtype=tl.int32)  # tokens all of whose ties are kept
    n_theirs = tl.zeros([], dtype=tl.int32)
    seen = tl.zeros([], dtype=tl.int32)
    for start in range(0, tl.where(surplus, n_tokens, 0), BLOCK):
        inside = start + lanes < n_tokens
        ties = tl.load(of_token + start + lanes, mask=inside, other=0)
        so_far = seen + tl.cumsum(ties, 0)
        whole = inside & (so_far < wanted)
        n_whole += tl.sum(whole.to(tl.int32), 0)
        n_theirs = tl.maximum(n_theirs, tl.max(tl.where(whole, so_far, 0), 0))
        seen += tl.sum(ties, 0)
    left = wanted - n_theirs
    n_passed = tl.zeros([], dtype=tl.int32)  # features before the one of the last wanted tie
    seen_here = tl.zeros([], dtype=tl.int32)
    for start in range(0, tl.where(surplus, n_features, 0), BLOCK):
        features = start + lanes
        inside = features < n_features
        found = tl.load(products + features * n_tokens + n_whole, mask=inside, other=0.0)
        value = found + tl.load(bias + features, mask=inside, other=0.0)
        tied = (inside & (value == cut)).to(tl.int32)
        so_far = seen_here + tl.cumsum(tied, 0)
        n_passed += tl.sum((inside & (so_far < left)).to(tl.int32), 0)
        seen_here += tl.sum(tied, 0)
    everything = tl.where(wanted > 0, n_tokens, -1)
    tl.store(limits + LIMIT_TOKEN, tl.where(surplus, n_whole, everything))
    tl.store(limits + LIMIT_FEATURE, tl.where(surplus, n_passed, -1))
