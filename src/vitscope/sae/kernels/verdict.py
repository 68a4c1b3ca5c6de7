"""Whether a step may be taken, and its figures: decided on the device, read by the host later."""

# a kernel's arguments have types only at its launch
# pyright: reportMissingParameterType=false, reportOperatorIssue=false

import triton
import triton.language as tl

from vitscope.sae.kernels.search_slots import KEPT, NAN, PATTERN

OK = tl.constexpr(0)
"""1 where this step is taken."""

FIRST_BAD = tl.constexpr(1)
"""The first step whose numbers were not finite; 0 if there was none. None is taken after it."""

HAD_NAN = tl.constexpr(2)
"""1 where that step had NaN among its pre-activations."""

N_MARKS = 4

LOSS = tl.constexpr(0)
AUXILIARY = tl.constexpr(1)
FVU = tl.constexpr(2)
N_KEPT = tl.constexpr(3)
THETA = tl.constexpr(4)
"""Running θ; below zero before the first batch."""

N_FIGURES = 8


@triton.jit(do_not_specialize=["step"])
def judge_step(
    squared_error,
    squared_x,
    auxiliary,
    search,
    bound,
    marks,
    figures,
    step,
    n_tokens,
    n_elements,
    MEMORY: tl.constexpr,
    GUESS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the step's marks and figures, and the next selection's bound. Grid: 1, one warp.

    Args:
        squared_error: ``[B]``.
        squared_x: ``[B]``.
        auxiliary: the auxiliary loss.
        search: numbers of the selection.
        bound: written: GUESS times the cut.
        marks: int32, see the names above.
        figures: float64, likewise; those of the first bad step stay.
        step: from 1.
        n_tokens: B.
        n_elements: B · d.
        MEMORY: of the running θ.
        GUESS: what of the cut the next one will hardly fall below.
        BLOCK: tokens per turn.
    """
    errors = tl.zeros([BLOCK], dtype=tl.float64)
    inputs = tl.zeros([BLOCK], dtype=tl.float64)
    first_bad = tl.load(marks + FIRST_BAD)
    for start in range(0, n_tokens, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < n_tokens
        errors += tl.load(squared_error + at, mask=inside, other=0.0).to(tl.float64)
        inputs += tl.load(squared_x + at, mask=inside, other=0.0).to(tl.float64)
    error, total = tl.sum(errors, 0), tl.sum(inputs, 0)
    aux = tl.load(auxiliary).to(tl.float64)
    nan = tl.load(search + NAN)
    # infinity minus itself is NaN, and NaN is unequal to itself
    finite = (error - error == 0) & (total - total == 0) & (aux - aux == 0) & (nan == 0)
    before = first_bad == 0
    ok = finite & before
    newly_bad = before & (finite == 0)
    cut = tl.load(search + PATTERN).to(tl.float32, bitcast=True)
    theta = tl.load(figures + THETA)
    running = MEMORY * theta + (1 - MEMORY) * cut.to(tl.float64)
    running = tl.where(theta < 0, cut.to(tl.float64), running)
    tl.store(marks + OK, ok.to(tl.int32))
    tl.store(marks + FIRST_BAD, step, mask=newly_bad)
    tl.store(marks + HAD_NAN, nan, mask=newly_bad)
    tl.store(figures + LOSS, error / n_elements, mask=before)
    tl.store(figures + AUXILIARY, aux, mask=before)
    tl.store(figures + FVU, error / total, mask=before)
    tl.store(figures + N_KEPT, tl.load(search + KEPT).to(tl.float64), mask=before)
    tl.store(figures + THETA, running, mask=ok)
    tl.store(bound, GUESS * cut)
