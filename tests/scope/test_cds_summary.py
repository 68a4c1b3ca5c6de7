"""The score of a feature against a slow loop over its pairs, under all three readings."""

import math
import statistics
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scope.toy_dictionary import random_pairs

from vitscope.scope.cds import FeatureScores, summarise_pairs
from vitscope.scope.pairs import PairScores
from vitscope.scope.settings import Missing

NAN = math.nan
DIAMETER = 7.5
READINGS: tuple[Missing, ...] = get_args(Missing)


def mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else NAN


def slow_summary(pairs: PairScores, feature: int, missing: Missing) -> dict[str, float]:
    """Compute every column of one feature pair by pair."""
    shares: dict[str, list[float]] = {reading: [] for reading in READINGS}
    null: list[float] = []
    cross: list[float] = []
    support: list[float] = []
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
            null.append(float(pairs.null[row]) / DIAMETER)
            support.append((a + b) / 2)
        elif a or b:
            missed += 1
            shares["max"].append(1.0)
            shares["zero"].append(0.0)
            support.append(a + b)
    chosen = shares[missing]
    return {
        "cds": mean(chosen),
        "cds_se": statistics.stdev(chosen) / math.sqrt(len(chosen)) if len(chosen) > 1 else NAN,
        "cds_max": mean(shares["max"]),
        "cds_drop": mean(shares["drop"]),
        "cds_zero": mean(shares["zero"]),
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
    )
    scores = summarise_pairs(pairs, 1, DIAMETER, missing)
    assert scores.cds[0] == pytest.approx(expected)
    assert scores.n_missed[0] == 1
    assert scores.n_exemplars[0] == 3
    assert scores.relative[0] == pytest.approx(0.5)
    assert scores.cross[0] == pytest.approx(0.3)
    assert scores.support[0] == 3


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
    pairs = PairScores(ones * 0, np.arange(n), ones, values, values, values, ones, ones)
    error = summarise_pairs(pairs, 1, 1.0, "drop").cds_se[0]
    assert error == pytest.approx(statistics.stdev(values.tolist()) / math.sqrt(n), rel=1e-5)
