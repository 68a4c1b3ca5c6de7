"""Where a histogram is cut: valleys between modes, and Otsu's threshold by brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vitscope.scope.valley import (
    N_BINS,
    density,
    find_valley,
    otsu_threshold,
    silverman_bandwidth,
)

Sample = NDArray[np.float64]


def two_gaussians(first: float, second: float, share: float, seed: int = 0) -> Sample:
    random = np.random.default_rng(seed)
    n = int(4000 * share)
    return np.concatenate([random.normal(first, 0.04, 4000 - n), random.normal(second, 0.04, n)])


def between_variance(sample: Sample, cut: float) -> float:
    """Compute n₁·n₂·(m₁ - m₂)² of the two sides."""
    low, high = sample[sample <= cut], sample[sample > cut]
    if not low.size or not high.size:
        return 0.0
    return low.size * high.size * float(low.mean() - high.mean()) ** 2


@pytest.mark.parametrize("share", [0.15, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("places", [(0.2, 0.5), (0.25, 0.75)])
def test_two_modes_have_a_valley_between_them(places: tuple[float, float], share: float) -> None:
    valley = find_valley(two_gaussians(*places, share), 0, 1, min_share=0.05)
    assert valley.threshold is not None
    assert places[0] + 0.06 < valley.threshold < places[1] - 0.06
    assert [mode.peak for mode in valley.modes] == pytest.approx(places, abs=0.03)
    assert [mode.share for mode in valley.modes] == pytest.approx([1 - share, share], abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_one_mode_has_no_valley(seed: int) -> None:
    sample = np.random.default_rng(seed).normal(0.4, 0.1, 4000)
    valley = find_valley(sample, 0, 1, min_share=0.05)
    assert valley.threshold is None
    assert len(valley.modes) == 1
    assert valley.modes[0].peak == pytest.approx(0.4, abs=0.05)


def test_a_mode_needs_its_share_of_the_mass() -> None:
    sample = two_gaussians(0.2, 0.7, 0.03)
    assert find_valley(sample, 0, 1, min_share=0.05).threshold is None
    assert find_valley(sample, 0, 1, min_share=0.01).threshold is not None


def test_the_cut_lies_beside_the_dominant_mode() -> None:
    random = np.random.default_rng(1)
    parts = [random.normal(c, 0.03, n) for c, n in ((0.1, 300), (0.4, 2000), (0.8, 700))]
    valley = find_valley(np.concatenate(parts), 0, 1, min_share=0.05)
    assert len(valley.modes) == 3
    assert valley.threshold is not None
    assert 0.46 < valley.threshold < 0.74
    # the dominant mode is the last: the cut is before it
    valley = find_valley(two_gaussians(0.2, 0.8, 0.9), 0, 1, min_share=0.05)
    assert valley.threshold is not None
    assert 0.26 < valley.threshold < 0.74


def test_values_off_the_axis_are_not_looked_at() -> None:
    sample = two_gaussians(0.2, 0.7, 0.3)
    beyond = np.concatenate([sample, np.full(3000, 5.0)])
    assert find_valley(beyond, 0, 1, min_share=0.05) == find_valley(
        sample[(sample >= 0) & (sample <= 1)], 0, 1, min_share=0.05
    )
    assert find_valley(np.full(5, 2.0), 0, 1, min_share=0.05).threshold is None


def test_a_spike_at_the_end_is_a_mode() -> None:
    random = np.random.default_rng(2)
    sample = np.concatenate([np.zeros(900), random.normal(0.4, 0.05, 400)])
    valley = find_valley(sample, 0, 1, min_share=0.05, bandwidth=0.03)
    assert valley.threshold is not None
    assert 0.03 < valley.threshold < 0.32


def test_the_density_is_a_gaussian_kernel_sum_and_loses_nothing() -> None:
    sample = np.asarray([0.3, 0.35, 0.6])
    curve = density(sample, 0.0, 1.0, 0.05)
    kernels = np.exp(-0.5 * ((curve.centres[:, None] - sample) / 0.05) ** 2).sum(1)
    expected = kernels / kernels.sum()
    np.testing.assert_allclose(curve.values, expected, atol=2e-2 * expected.max())
    at_end = density(np.asarray([0.0, 1.0]), 0.0, 1.0, 0.1)
    assert at_end.values.sum() == pytest.approx(1)
    assert at_end.values[0] == at_end.values.max()


def test_silverman_takes_the_smaller_spread() -> None:
    sample = np.random.default_rng(3).normal(size=500)
    robust = (np.percentile(sample, 75) - np.percentile(sample, 25)) / 1.34
    expected = 0.9 * min(sample.std(), robust) * 500 ** (-1 / 5)
    assert silverman_bandwidth(sample) == pytest.approx(expected)
    spiked = np.concatenate([np.zeros(90), np.ones(10)])
    assert silverman_bandwidth(spiked) == pytest.approx(0.9 * 0.3 * 100 ** (-1 / 5))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.integers(2, 60))
def test_otsu_is_the_best_of_all_cuts(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    centres = (np.arange(N_BINS) + 0.5) / N_BINS
    # on bin centres, so that binning rounds nothing
    sample = random.choice(centres, n)
    found = otsu_threshold(sample, 0, 1)
    best = max(between_variance(sample, cut) for cut in np.unique(sample))
    assert between_variance(sample, found) == pytest.approx(best, rel=1e-9, abs=1e-12)


def test_otsu_cuts_an_empty_gap_in_its_middle() -> None:
    sample = np.concatenate([np.linspace(0.1, 0.2, 50), np.linspace(0.6, 0.7, 50)])
    assert otsu_threshold(sample, 0, 1) == pytest.approx(0.4, abs=1e-3)
