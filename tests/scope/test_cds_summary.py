"""The score of a feature against a slow loop over its pairs, under all three readings."""

import math
import statistics
from dataclasses import fields, replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scope.toy_dictionary import random_pairs

from vitscope.errors import ConfigError
from vitscope.scope.cds import FeatureScores, summarise_pairs
from vitscope.scope.pairs import PairScores
from vitscope.scope.settings import Missing

NAN = math.nan
DIAMETER = 7.5
READINGS: tuple[Missing, ...] = get_args(Missing)


def mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else NAN


def standard_error(values: list[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else NAN


def slow_summary(pairs: PairScores, feature: int, missing: Missing) -> dict[str, float]:
    """Compute every column of one feature pair by pair."""
    shares: dict[str, list[float]] = {reading: [] for reading in READINGS}
    null: list[float] = []
    cross: list[float] = []
    support: list[float] = []
    moved: list[float] = []
    kinds: dict[str, list[float]] = {"flicker": [], "border": [], "departure": []}
    missed = exemplars = 0
    for row in range(len(pairs.feature)):
        if pairs.feature[row] != feature:
            continue
        exemplars += 1
        if not math.isnan(pairs.cross[row]):
            cross.append(float(pairs.cross[row]) / DIAMETER)
        a, b = int(pairs.cells_first[row]), int(pairs.cells_second[row])
        if a and b:
            for values in shares.values():
                values.append(float(pairs.emd[row]) / DIAMETER)
            moved.append(float(pairs.emd[row]) / DIAMETER)
            null.append(float(pairs.null[row]) / DIAMETER)
            support.append((a + b) / 2)
            kind = ""
        elif a or b:
            missed += 1
            shares["max"].append(1.0)
            shares["zero"].append(0.0)
            support.append(a + b)
            moved.append(0.0)
            silent = "second" if a else "first"
            if getattr(pairs, f"reach_{silent}")[row] >= 0.5:
                kind = "flicker"
            else:
                kind = "border" if getattr(pairs, f"beyond_{silent}")[row] >= 1 else "departure"
        else:
            continue
        for name, values in kinds.items():
            values.append(float(name == kind))
    parts = {"moved": moved, **kinds}
    chosen = shares[missing]
    return {
        "cds": mean(chosen),
        "cds_se": standard_error(chosen),
        "cds_max": mean(shares["max"]),
        "cds_drop": mean(shares["drop"]),
        "cds_zero": mean(shares["zero"]),
        **{name: mean(values) for name, values in parts.items()},
        **{f"{name}_se": standard_error(values) for name, values in parts.items()},
        "n_pairs": len(chosen),
        "n_missed": missed,
        "n_exemplars": exemplars,
        "survival": len(shares["drop"]) / exemplars if exemplars else NAN,
        "support": mean(support),
        "null": mean(null),
        "cross": mean(cross),
        "relative": mean(shares["drop"]) / mean(null) if null else NAN,
    }


def assert_summary(found: FeatureScores, pairs: PairScores, m: int, missing: Missing) -> None:
    for feature in range(m):
        for name, value in slow_summary(pairs, feature, missing).items():
            ours = float(getattr(found, name)[feature])
            assert ours == pytest.approx(value, rel=1e-12, abs=1e-12, nan_ok=True), (feature, name)


@pytest.mark.parametrize("missing", READINGS)
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 60), st.integers(1, 8))
def test_equals_a_slow_loop(missing: Missing, seed: int, n: int, m: int) -> None:
    pairs = random_pairs(np.random.default_rng(seed), n, m)
    # one feature more than has pairs: unscored
    assert_summary(summarise_pairs(pairs, m + 1, DIAMETER, missing), pairs, m + 1, missing)


@pytest.mark.parametrize(
    ("missing", "expected"), [("max", (0.2 + 1) / 2), ("drop", 0.2), ("zero", 0.2 / 2)]
)
def test_what_a_miss_counts(missing: Missing, expected: float) -> None:
    pairs = PairScores(
        feature=np.zeros(3, np.int64),
        rank=np.arange(3),
        image=np.arange(3),
        emd=np.asarray([0.2 * DIAMETER, NAN, NAN]),
        null=np.asarray([0.4 * DIAMETER, NAN, NAN]),
        cross=np.asarray([0.3 * DIAMETER, NAN, NAN]),
        cells_first=np.asarray([3, 2, 0]),
        cells_second=np.asarray([5, 0, 0]),
        reach_first=np.asarray([1.5, 1.2, 0.2]),
        reach_second=np.asarray([1.5, 0.9, 0.2]),
        beyond_first=np.zeros(3),
        beyond_second=np.zeros(3),
    )
    scores = summarise_pairs(pairs, 1, DIAMETER, missing)
    assert scores.cds[0] == pytest.approx(expected)
    assert scores.n_missed[0] == 1
    assert scores.n_exemplars[0] == 3
    assert scores.relative[0] == pytest.approx(0.5)
    assert scores.cross[0] == pytest.approx(0.3)
    assert scores.support[0] == 3
    assert (scores.moved[0], scores.flicker[0]) == (pytest.approx(0.1), 0.5)
    assert (scores.border[0], scores.departure[0]) == (0, 0)


@given(st.integers(0, 10_000))
def test_moved_and_the_kinds_of_miss_add_up_to_the_score(seed: int) -> None:
    pairs = random_pairs(np.random.default_rng(seed), 60, 6)
    s = summarise_pairs(pairs, 7, DIAMETER, "drop")
    np.testing.assert_allclose(s.moved + s.flicker + s.border + s.departure, s.cds_max, atol=1e-12)
    missed = sum(rows.astype(int) for rows in pairs.misses.values())
    np.testing.assert_array_equal(missed, pairs.missed, "each of one kind")


def test_without_a_threshold_misses_are_not_told_apart() -> None:
    pairs = random_pairs(np.random.default_rng(3), 60, 6)
    nan = np.full(60, NAN)
    s = summarise_pairs(replace(pairs, reach_first=nan, reach_second=nan), 6, DIAMETER, "max")
    with_misses = s.n_missed > 0
    assert with_misses.any()
    assert np.isnan(s.flicker[with_misses]).all() and np.isnan(s.departure[with_misses]).all()
    assert np.isfinite(s.moved[with_misses]).all()


@given(st.integers(0, 1000), st.floats(0, 3))
def test_weak_pairs_are_left_out_and_what_is_left_is_as_it_was(seed: int, least: float) -> None:
    pairs = random_pairs(np.random.default_rng(seed), 40, 5)
    kept = pairs.strong(least)
    rows = [
        row
        for row in range(40)
        if least == 0 or max(pairs.reach_first[row], pairs.reach_second[row]) >= least
    ]
    for f in fields(PairScores):
        np.testing.assert_array_equal(getattr(kept, f.name), getattr(pairs, f.name)[rows])


def test_strength_needs_a_threshold() -> None:
    pairs, nan = random_pairs(np.random.default_rng(0), 9, 2), np.full(9, NAN)
    without = replace(pairs, reach_first=nan, reach_second=nan)
    assert without.strong(0) is without
    with pytest.raises(ConfigError, match="this SAE has none"):
        without.strong(2)
    assert PairScores.empty().strong(2).feature.size == 0


def test_a_feature_without_a_pair_has_no_score() -> None:
    pairs = random_pairs(np.random.default_rng(1), 0, 3)
    scores = summarise_pairs(pairs, 3, DIAMETER, "max")
    assert np.isnan(scores.cds).all()
    assert (scores.n_pairs == 0).all()


@pytest.mark.parametrize("missing", READINGS)
def test_too_few_pairs_are_no_score(missing: Missing) -> None:
    pairs = random_pairs(np.random.default_rng(7), 60, 12)
    every, some = (summarise_pairs(pairs, 12, DIAMETER, missing, least) for least in (1, 3))
    enough = every.n_pairs >= 3
    assert enough.any() and not enough.all()
    np.testing.assert_array_equal(some.cds[enough], every.cds[enough])
    assert np.isnan(some.cds[~enough]).all() and np.isnan(some.cds_se[~enough]).all()
    kept = np.rint(every.n_exemplars * np.nan_to_num(every.survival)) >= 3
    np.testing.assert_array_equal(np.isfinite(some.cds_drop), kept)
    np.testing.assert_array_equal(some.n_pairs, every.n_pairs)


def test_a_small_spread_survives_a_large_mean() -> None:
    n = 1000
    values = (1.0 - 1e-9 * np.arange(n)).astype(np.float64)
    ones = np.ones(n, np.int64)
    pairs = PairScores(
        ones * 0, np.arange(n), ones, values, values, values, ones, ones, *[values] * 4
    )
    error = summarise_pairs(pairs, 1, 1.0, "drop").cds_se[0]
    assert error == pytest.approx(statistics.stdev(values.tolist()) / math.sqrt(n), rel=1e-5)
