"""The random search: which learning rate and weight decay each trial has."""

import math
from dataclasses import dataclass

from vitscope.draws import generator
from vitscope.probes.settings import HeadSettings, Range, Search


@dataclass(frozen=True)
class Trial:
    """One head of every variant.

    Attributes:
        seed: which search it belongs to.
        number: within the search, from 0.
        learning_rate: at the first step; a cosine brings it to 0.
        weight_decay: of every parameter, as torch's SGD has it.
    """

    seed: int
    number: int
    learning_rate: float
    weight_decay: float


def draw_trials(
    task: str, settings: HeadSettings, *, n: int, seeds: range, search: Search
) -> tuple[Trial, ...]:
    """Draw ``n`` trials for each seed: a pure function of (seed, task, number).

    All variants of the tokens share them, so that variants are compared like with like.
    """
    trials: list[Trial] = []
    for seed in seeds:
        for number in range(n):
            random = generator(seed, "probe", task, number)
            rate = _between(settings.learning_rate, random.random(), search)
            decay = _between(settings.weight_decay, random.random(), search)
            trials.append(Trial(seed, number, rate, decay))
    return tuple(trials)


def _between(bounds: Range, share: float, search: Search) -> float:
    low, high = bounds
    if search == "linear":
        return low + share * (high - low)
    return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
