"""What the kept entries reconstruct of each token, and how far it is off."""

# a kernel's arguments have types only at its launch
# pyright: reportMissingParameterType=false, reportOperatorIssue=false

import triton
import triton.language as tl


@triton.jit
def reconstruct_tokens(
    x,
    w_dec,
    b_dec,
    starts,
    features,
    values,
    first_bad,
    error,
    squared_error,
    squared_x,
    width,
    D: tl.constexpr,
    E: tl.constexpr,
):
    """Write ``x̂ − x`` and its squared norm for one token. Grid: B.

    Args:
        x: ``[B, d]``.
        w_dec: ``[m, d]``.
        b_dec: ``[d]``.
        starts: ``[B + 1]``, place of each token's first entry.
        features: of each entry, by token.
        values: likewise.
        first_bad: step whose numbers were not finite; 0 if there was none. After one,
            ``squared_x`` is left as it was then.
        error: ``[B, d]``, written.
        squared_error: ``[B]``, written.
        squared_x: ``[B]``, written.
        width: d.
        D: d rounded up to a power of two.
        E: entries read at a time, a power of two.
    """
    token = tl.program_id(0)
    columns = tl.arange(0, D)
    inside = columns < width
    at = token.to(tl.int64) * width + columns
    row = tl.load(x + at, mask=inside, other=0.0)
    off = tl.load(b_dec + columns, mask=inside, other=0.0) - row
    last = tl.load(starts + token + 1)
    for start in range(tl.load(starts + token), last, E):
        entries = start + tl.arange(0, E)
        real = entries < last
        feature = tl.load(features + entries, mask=real, other=0)
        value = tl.load(values + entries, mask=real, other=0.0)
        places = feature.to(tl.int64)[:, None] * width + columns[None, :]
        rows = tl.load(w_dec + places, mask=real[:, None] & inside[None, :], other=0.0)
        off += tl.sum(value[:, None] * rows, 0)
    tl.store(error + at, off, mask=inside)
    open_still = tl.load(first_bad) == 0
    tl.store(squared_error + token, tl.sum(off * off, 0))
    tl.store(squared_x + token, tl.sum(row * row, 0), mask=open_still)
