"""How long training lasts, and the learning rate of each step."""

import math

from vitscope.errors import SaeError
from vitscope.sae.settings import SaeSettings

DEFAULT_STEPS = 1000
"""Least number of steps where neither epochs nor steps are set."""

DEFAULT_DEAD_SHARE = 0.1
DEFAULT_DEAD_TOKENS = 1_000_000
"""Without a setting, a feature is dead after this share of the training, at most so many tokens."""


def effective_batch(settings: SaeSettings, n_tokens: int) -> int:
    """Return the rows of a batch: as set, or an epoch's tokens where those are fewer.

    Raises:
        SaeError: the source has no tokens.
    """
    if n_tokens < 1:
        raise SaeError("there are no tokens to train on; check the image folder and its limit")
    return min(settings.batch_size, n_tokens)


def total_steps(settings: SaeSettings, batches_per_epoch: int) -> int:
    """Return the number of steps that ``epochs`` and ``steps`` ask for."""
    of_epochs = None if settings.epochs is None else math.ceil(settings.epochs * batches_per_epoch)
    limits = [limit for limit in (settings.steps, of_epochs) if limit is not None]
    return min(limits) if limits else max(batches_per_epoch, DEFAULT_STEPS)


def dead_after(settings: SaeSettings, training_tokens: int) -> int:
    """Return for how many tokens a feature may stay silent before it counts as dead."""
    if settings.dead_after_tokens is not None:
        return settings.dead_after_tokens
    return max(1, min(DEFAULT_DEAD_TOKENS, int(DEFAULT_DEAD_SHARE * training_tokens)))


def learning_rate(settings: SaeSettings, step: int, n_steps: int, end: int | None = None) -> float:
    """Return the rate of ``step`` (from 0): linear rise, plateau, linear fall towards zero.

    Args:
        settings: the rates, and the shares of rise and fall.
        step: steps done.
        n_steps: planned steps, of which rise and fall are shares.
        end: where training ends earlier: the fall is as long as planned, and ends there.
    """
    rise = (step + 1) / max(settings.warmup_share * n_steps, 1)
    fall = ((end or n_steps) - step) / max(settings.decay_share * n_steps, 1)
    return settings.learning_rate * min(1.0, rise, fall)


def end_after_fall(settings: SaeSettings, step: int, n_steps: int) -> int:
    """Return where a training ends whose rate begins its final fall after ``step`` steps."""
    return min(n_steps, step + math.ceil(settings.decay_share * n_steps))
