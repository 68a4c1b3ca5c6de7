"""Adam's update of some elements, as the kernels share it."""

# a kernel's arguments have types only at its launch
# pyright: reportMissingParameterType=false, reportOperatorIssue=false

import triton
import triton.language as tl

from vitscope.sae.optimiser import BETAS, EPSILON

FIRST_DECAY = tl.constexpr(BETAS[0])
SECOND_DECAY = tl.constexpr(BETAS[1])
DAMPING = tl.constexpr(EPSILON)


@triton.jit
def adam(parameter, exp_avg, exp_avg_sq, gradient, rate, root):
    """Return the parameter and both moments after one step.

    Args:
        parameter: before it.
        exp_avg: first moment, before it.
        exp_avg_sq: second moment, before it.
        gradient: of the loss.
        rate: learning rate over the first moment's bias correction.
        root: square root of the second moment's bias correction.
    """
    exp_avg = FIRST_DECAY * exp_avg + (1 - FIRST_DECAY) * gradient
    exp_avg_sq = SECOND_DECAY * exp_avg_sq + (1 - SECOND_DECAY) * gradient * gradient
    step = exp_avg / (tl.sqrt(exp_avg_sq) / root + DAMPING)
    return parameter - rate * step, exp_avg, exp_avg_sq


@triton.jit
def moved(parameter, exp_avg, exp_avg_sq, at, inside, gradient, rate, root):
    """Return values ``parameter`` after one step; change their moments, which are at ``at``."""
    new, first, second = adam(
        parameter,
        tl.load(exp_avg + at, mask=inside, other=0.0),
        tl.load(exp_avg_sq + at, mask=inside, other=0.0),
        gradient,
        rate,
        root,
    )
    tl.store(exp_avg + at, first, mask=inside)
    tl.store(exp_avg_sq + at, second, mask=inside)
    return new


@triton.jit
def update_vector(
    parameter, exp_avg, exp_avg_sq, gradient, ok, rate, root, n_elements, BLOCK: tl.constexpr
):
    """Take one step on a vector, unless ``ok`` is 0. Grid: ⌈n_elements / BLOCK⌉."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < tl.where(tl.load(ok) != 0, n_elements, 0)
    before = tl.load(parameter + at, mask=inside, other=0.0)
    of_vector = tl.load(gradient + at, mask=inside, other=0.0)
    new = moved(before, exp_avg, exp_avg_sq, at, inside, of_vector, rate, root)
    tl.store(parameter + at, new, mask=inside)
