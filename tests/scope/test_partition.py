"""The two groups: every feature in exactly one of three, γ from where it is said to come."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from vitscope.errors import ConfigError
from vitscope.scope.modes import bin_sample
from vitscope.scope.partition import MAX_BANDWIDTH, Partition, cds_bandwidth, partition_features
from vitscope.scope.thresholds import otsu_threshold

NAN = float("nan")
Scores = NDArray[np.float64]

scores = st.integers(1, 60).flatmap(
    lambda n: arrays(np.float64, n, elements=st.one_of(st.just(NAN), st.floats(0, 1)))
)


def bimodal(seed: int = 0) -> Scores:
    random = np.random.default_rng(seed)
    both = [random.normal(0.08, 0.03, 700), random.normal(0.5, 0.06, 200)]
    return np.clip(np.concatenate([*both, np.full(50, NAN)]), 0, 1)


def assert_split(found: Partition, cds: Scores, *, unscored_low: bool) -> None:
    groups = [set(group.tolist()) for group in (found.low, found.high, found.unscored)]
    assert sum(map(len, groups)) == len(cds)
    assert set.union(*groups) == set(range(len(cds)))
    labels = found.group.tolist()
    for feature, value in enumerate(cds):
        if np.isnan(value):
            expected = "low" if unscored_low else "unscored"
        else:
            expected = "low" if value <= found.gamma else "high"
        assert labels[feature] == expected
        assert feature in groups[["low", "high", "unscored"].index(expected)]


@settings(max_examples=60, deadline=None)
@given(scores, st.one_of(st.none(), st.floats(0, 1)), st.booleans())
def test_every_feature_is_in_exactly_one_group(
    cds: Scores, gamma: float | None, unscored_low: bool
) -> None:
    unscored = "low" if unscored_low else "separate"
    if np.isnan(cds).all():
        with pytest.raises(ConfigError, match="no feature has a CDS"):
            partition_features(cds, gamma=gamma, unscored=unscored)
        return
    found = partition_features(cds, gamma=gamma, unscored=unscored)
    assert_split(found, cds, unscored_low=unscored_low)
    assert 0 <= found.gamma <= 1
    if gamma is not None:
        assert (found.gamma, found.source) == (gamma, "given")


def test_two_modes_are_cut_at_the_valley() -> None:
    found = partition_features(bimodal())
    assert found.source == "valley"
    assert 0.15 < found.gamma < 0.35
    assert (found.low.size, found.high.size, found.unscored.size) == (700, 200, 50)
    assert found.message.startswith(f"γ = {found.gamma:.3f} is the valley between CDS 0.0")
    assert found.mode_peaks == pytest.approx((0.08, 0.5), abs=0.03)


def test_one_mode_falls_back_on_otsu_and_says_so() -> None:
    cds = np.random.default_rng(1).normal(0.4, 0.08, 800)
    found = partition_features(cds)
    assert found.source == "otsu"
    assert found.gamma == otsu_threshold(bin_sample(cds, 0, 1)) == pytest.approx(0.4, abs=0.03)
    assert "no second mode" in found.message
    assert "convention" in found.message
    assert len(found.mode_peaks) == 1


def test_a_feature_at_gamma_is_low() -> None:
    found = partition_features(np.asarray([0.2, 0.3, 0.4]), gamma=0.3)
    assert found.low.tolist() == [0, 1]
    assert found.high.tolist() == [2]


def test_the_bandwidth_is_silvermans_without_the_quartiles_and_bounded() -> None:
    narrow = np.random.default_rng(2).normal(0.5, 0.02, 1000)
    found = cds_bandwidth(bin_sample(narrow, 0, 1))
    assert found == pytest.approx(0.9 * narrow.std() * 1000 ** (-1 / 5), rel=1e-3)
    assert cds_bandwidth(bin_sample(np.asarray([0.0, 1.0]), 0, 1)) == MAX_BANDWIDTH
