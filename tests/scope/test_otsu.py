"""Otsu's threshold by brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vitscope.scope.binned import N_BINS, Binned, bin_sample
from vitscope.scope.otsu import otsu_threshold

Sample = NDArray[np.float64]


def between_variance(sample: Sample, cut: float) -> float:
    """Compute n₁·n₂·(m₁ - m₂)² of the two sides."""
    low, high = sample[sample <= cut], sample[sample > cut]
    if not low.size or not high.size:
        return 0.0
    return low.size * high.size * float(low.mean() - high.mean()) ** 2


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.integers(2, 60))
def test_it_is_the_best_of_all_cuts(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    # on bin centres, so that binning rounds nothing
    sample = random.choice((np.arange(N_BINS) + 0.5) / N_BINS, n)
    found = float(otsu_threshold(bin_sample(sample, 0, 1)))
    best = max(between_variance(sample, cut) for cut in np.unique(sample))
    assert between_variance(sample, found) == pytest.approx(best, rel=1e-9, abs=1e-12)


def test_an_empty_gap_is_cut_in_its_middle() -> None:
    sample = np.concatenate([np.linspace(0.1, 0.2, 50), np.linspace(0.6, 0.7, 50)])
    assert otsu_threshold(bin_sample(sample, 0, 1)) == pytest.approx(0.4, abs=1e-3)


def test_of_two_equal_gaps_the_first_is_cut() -> None:
    sample = np.repeat([0.1, 0.5, 0.9], 20) + 1e-4
    assert otsu_threshold(bin_sample(sample, 0, 1)) == pytest.approx(0.3, abs=1e-3)


def test_one_value_alone_is_not_above() -> None:
    cut = float(otsu_threshold(bin_sample(np.full(5, 0.3), 0, 1)))
    assert 0.3 <= cut < 0.301


def test_many_samples_at_once_are_each_cut_as_alone() -> None:
    random = np.random.default_rng(0)
    samples = [bin_sample(random.beta(a, 3, 200), 0, 1) for a in (0.5, 2.0, 9.0)]
    together = Binned(0.0, 1.0, np.stack([one.counts for one in samples]))
    np.testing.assert_array_equal(
        otsu_threshold(together), [otsu_threshold(one) for one in samples]
    )
