"""How long each feature has been silent, counted on the device."""

# a kernel's arguments have types only at its launch
# pyright: reportMissingParameterType=false, reportOperatorIssue=false

import triton
import triton.language as tl


@triton.jit
def count_silence(silent_tokens, starts, ok, n_tokens, n_features, BLOCK: tl.constexpr):
    """Add B to every feature's silence, or end it where it was kept, unless ``ok`` is 0.

    Grid: ⌈m / BLOCK⌉.

    Args:
        silent_tokens: ``[m]``, int64, changed.
        starts: ``[m + 1]``, place of each feature's first entry.
        ok: one number.
        n_tokens: B.
        n_features: m.
        BLOCK: features per program.
    """
    features = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = features < tl.where(tl.load(ok) != 0, n_features, 0)
    first = tl.load(starts + features, mask=inside, other=0)
    fired = tl.load(starts + features + 1, mask=inside, other=0) > first
    silent = tl.load(silent_tokens + features, mask=inside, other=0)
    tl.store(silent_tokens + features, tl.where(fired, 0, silent + n_tokens), mask=inside)
