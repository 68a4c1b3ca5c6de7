"""Random features that contribute as much and as often as a group: what removal alone does."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitscope.draws import generator
from vitscope.errors import ConfigError

CANDIDATES = 8
"""A feature's stand-in is drawn from so many nearest free ones: seeds then differ."""

TOLERANCE = 0.2
"""A control counts as matched when its energy and its firing are within this share of the
group's."""


@dataclass(frozen=True)
class Control:
    """Features from outside a group that stand in for it (protocol, section 8).

    Attributes:
        seed: of the draw.
        features: the stand-ins, ascending; empty where there is no candidate.
        n_group: features of the group that fire, each of which wants a stand-in.
        energy_ratio: Σ a²‖d‖² of the control over that of the group; NaN for a silent group.
        rate_ratio: firings of the control over those of the group; NaN for a silent group.
        is_matched: both ratios lie within ``TOLERANCE`` of 1.
        message: in a sentence, what was found, or why no match exists.
    """

    seed: int
    features: NDArray[np.int64]
    n_group: int
    energy_ratio: float
    rate_ratio: float
    is_matched: bool
    message: str


def matched_controls(
    group: NDArray[np.bool_],
    energy: NDArray[np.float64],
    rate: NDArray[np.float64],
    *,
    seeds: Sequence[int],
    tolerance: float = TOLERANCE,
) -> list[Control]:
    """Draw one control per seed: for each feature of the group one from outside, near it in both.

    Nearness is the Euclidean distance in log energy and log rate. The group's strongest features
    choose first, each at random among its nearest free candidates, none of which serves twice.
    Where all that lies outside is stronger than the group, stand-ins are dropped at random until
    fewer of them have as much energy and as many firings together.

    Args:
        group: which features belong to the group, [m].
        energy: Σ a²‖d‖² of every feature, [m].
        rate: share of tokens on which it fires, [m].
        seeds: one control each.
        tolerance: how far the totals may be off for a match.

    Raises:
        ConfigError: the three arrays do not belong to one dictionary.
    """
    if not group.shape == energy.shape == rate.shape or group.ndim != 1:
        raise ConfigError(
            f"group {group.shape}, energy {energy.shape} and rate {rate.shape} must each hold "
            "one entry per feature of the same SAE"
        )
    fires = (energy > 0) & (rate > 0)
    wanted, pool = np.flatnonzero(group & fires), np.flatnonzero(~group & fires)
    controls: list[Control] = []
    for seed in seeds:
        drawn = _draw(wanted, pool, energy, rate, seed)
        kept = _thinned(drawn, wanted, energy, rate, seed)
        controls.append(_judge(seed, kept, wanted, len(pool), energy, rate, tolerance))
    return controls


def _draw(
    wanted: NDArray[np.int64],
    pool: NDArray[np.int64],
    energy: NDArray[np.float64],
    rate: NDArray[np.float64],
    seed: int,
) -> NDArray[np.int64]:
    random = generator(seed, "control")
    place_energy, place_rate = np.log(energy[pool]), np.log(rate[pool])
    free = np.ones(len(pool), dtype=bool)
    chosen: list[int] = []
    for feature in wanted[np.argsort(-energy[wanted], kind="stable")]:
        if len(chosen) == len(pool):
            break
        gap = np.hypot(place_energy - np.log(energy[feature]), place_rate - np.log(rate[feature]))
        gap[~free] = np.inf
        n = min(CANDIDATES, int(free.sum()))
        nearest = np.argpartition(gap, n - 1)[:n]
        # argpartition leaves the order open: sorted, the draw is the same on every machine
        pick = int(np.sort(nearest)[random.integers(n)])
        free[pick] = False
        chosen.append(int(pool[pick]))
    return np.sort(np.asarray(chosen, dtype=np.int64))


def _thinned(
    drawn: NDArray[np.int64],
    wanted: NDArray[np.int64],
    energy: NDArray[np.float64],
    rate: NDArray[np.float64],
    seed: int,
) -> NDArray[np.int64]:
    """Drop stand-ins at random while enough energy and firings are left without.

    Where more energy than firings is to spare one with much energy for its firings goes, and the
    reverse: by chance alone the one would run out while there is still much of the other.
    """
    random = generator(seed, "control, thinned")
    shares = np.stack([v[drawn] / v[wanted].sum() for v in (energy, rate)], 1)
    kept, totals = np.arange(len(drawn)), shares.sum(0)
    while len(kept):
        places = random.permutation(len(kept))[:CANDIDATES]
        lost = shares[kept[places]]
        can_go = (totals - lost).min(1) >= 1
        if not can_go.any():
            break
        helps = can_go & ((lost[:, 0] > lost[:, 1]) == (totals[0] > totals[1]))
        first = int(np.argmax(helps if helps.any() else can_go))
        totals = totals - lost[first]
        kept = np.delete(kept, places[first])
    return drawn[kept]


def _judge(
    seed: int,
    features: NDArray[np.int64],
    wanted: NDArray[np.int64],
    n_outside: int,
    energy: NDArray[np.float64],
    rate: NDArray[np.float64],
    tolerance: float,
) -> Control:
    if not len(wanted):
        message = "no feature of the group fires: there is nothing to match"
        return Control(seed, features[:0], 0, float("nan"), float("nan"), False, message)
    energy_ratio = float(energy[features].sum() / energy[wanted].sum())
    rate_ratio = float(rate[features].sum() / rate[wanted].sum())
    off = max(abs(energy_ratio - 1), abs(rate_ratio - 1))
    is_matched = off <= tolerance
    found = (
        f"{len(features):,} features stand in for {len(wanted):,}, with {energy_ratio:.0%} of "
        f"their energy and {rate_ratio:.0%} of their firings"
    )
    if not is_matched and len(features) == n_outside:
        found = f"no matched control exists, only {n_outside:,} features lie outside: {found}"
    elif not is_matched:
        found = f"no matched control exists: {found}"
    return Control(seed, features, len(wanted), energy_ratio, rate_ratio, is_matched, found)
