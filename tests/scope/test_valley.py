"""Where a histogram is cut: valleys between modes of a density that loses nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vitscope.scope.binned import N_BINS, Binned, bin_sample
from vitscope.scope.valley import (
    NARROWEST,
    Bandwidth,
    Valley,
    density,
    find_valley,
    find_valleys,
    silverman_bandwidth,
)

Sample = NDArray[np.float64]


def two_gaussians(first: float, second: float, share: float, seed: int = 0) -> Sample:
    random = np.random.default_rng(seed)
    n = int(4000 * share)
    return np.concatenate([random.normal(first, 0.04, 4000 - n), random.normal(second, 0.04, n)])


def valley_of(
    sample: Sample, min_share: float = 0.05, bandwidth: Bandwidth = silverman_bandwidth
) -> Valley:
    return find_valley(bin_sample(sample, 0, 1), min_share=min_share, bandwidth=bandwidth)


@pytest.mark.parametrize("share", [0.15, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("places", [(0.2, 0.5), (0.25, 0.75)])
def test_two_modes_have_a_valley_between_them(places: tuple[float, float], share: float) -> None:
    valley = valley_of(two_gaussians(*places, share))
    assert valley.threshold is not None
    assert places[0] + 0.06 < valley.threshold < places[1] - 0.06
    assert [mode.peak for mode in valley.modes] == pytest.approx(places, abs=0.03)
    assert [mode.share for mode in valley.modes] == pytest.approx([1 - share, share], abs=0.02)
    assert valley.dominant.peak == pytest.approx(places[share > 0.5], abs=0.03) or share == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_one_mode_has_no_valley(seed: int) -> None:
    valley = valley_of(np.random.default_rng(seed).normal(0.4, 0.1, 4000))
    assert valley.threshold is None
    assert len(valley.modes) == 1
    assert valley.modes[0].peak == pytest.approx(0.4, abs=0.05)


def test_a_mode_needs_its_share_of_the_mass() -> None:
    sample = two_gaussians(0.2, 0.7, 0.03)
    assert valley_of(sample, 0.05).threshold is None
    assert valley_of(sample, 0.01).threshold is not None


def test_the_cut_lies_beside_the_dominant_mode() -> None:
    random = np.random.default_rng(1)
    parts = [random.normal(c, 0.03, n) for c, n in ((0.1, 300), (0.4, 2000), (0.8, 700))]
    valley = valley_of(np.concatenate(parts))
    assert len(valley.modes) == 3
    assert valley.threshold is not None
    assert 0.46 < valley.threshold < 0.74
    # the dominant mode is the last: the cut is before it
    valley = valley_of(two_gaussians(0.2, 0.8, 0.9))
    assert valley.threshold is not None
    assert 0.26 < valley.threshold < 0.74


def test_values_off_the_axis_are_not_looked_at() -> None:
    sample = two_gaussians(0.2, 0.7, 0.3)
    assert valley_of(np.concatenate([sample, np.full(3000, 5.0)])) == valley_of(
        sample[(sample >= 0) & (sample <= 1)]
    )
    assert valley_of(np.full(5, 2.0)).threshold is None


def test_a_spike_at_the_end_is_a_mode() -> None:
    random = np.random.default_rng(2)
    sample = np.concatenate([np.zeros(900), random.normal(0.4, 0.05, 400)])
    valley = valley_of(sample, bandwidth=lambda binned: np.full(binned.counts.shape[:-1], 0.03))
    assert valley.threshold is not None
    assert 0.03 < valley.threshold < 0.32


def test_flat_stretches_and_rounding_make_no_modes() -> None:
    assert len(valley_of(np.full(500, 0.3)).modes) == 1
    even = find_valley(Binned(0.0, 1.0, np.ones(N_BINS)), min_share=0.0)
    assert even.threshold is None
    assert even.modes[0].share == pytest.approx(1)


def test_the_narrowest_kernel_does_not_ring() -> None:
    atom = bin_sample(np.full(1, 0.1), 0, 1)
    curve = density(atom, NARROWEST * atom.width)
    assert (np.diff(np.sign(np.diff(curve[curve > 0]))) != 0).sum() <= 2
    assert (np.diff(np.flatnonzero(curve > 0)) == 1).all()


def test_many_samples_at_once_are_each_cut_as_alone() -> None:
    samples = [two_gaussians(0.2, 0.6, share, seed) for seed, share in enumerate((0.1, 0.5, 0.02))]
    counts = np.stack([bin_sample(sample, 0, 1).counts for sample in samples])
    together = find_valleys(Binned(0.0, 1.0, counts), min_share=0.05)
    assert together == [valley_of(sample) for sample in samples]
    assert len({valley.bandwidth for valley in together}) == 3


@pytest.mark.parametrize("bandwidth", [0.01, 0.05, 0.3])
def test_the_density_is_a_kernel_sum_reflected_at_both_ends(bandwidth: float) -> None:
    centres = (np.arange(N_BINS) + 0.5) / N_BINS
    sample = centres[[3, 600, 700, 1500, 2040]]
    found = density(bin_sample(sample, 0.0, 1.0), bandwidth)
    images = np.concatenate([sign * sample + 2 * k for k in range(-3, 4) for sign in (-1, 1)])
    kernels = np.exp(-0.5 * ((centres[:, None] - images) / bandwidth) ** 2).sum(1)
    np.testing.assert_allclose(found, kernels / kernels.sum(), atol=1e-11 * found.max())
    assert found.sum() == pytest.approx(1)


def test_silverman_takes_the_smaller_spread() -> None:
    random = np.random.default_rng(3)
    for sample in (random.exponential(size=500), random.uniform(0, 9, 500)):
        robust = (np.percentile(sample, 75) - np.percentile(sample, 25)) / 1.34
        assert abs(robust / sample.std() - 1) > 0.05
        expected = 0.9 * min(sample.std(), robust) * 500 ** (-1 / 5)
        assert silverman_bandwidth(bin_sample(sample, 0, 10)) == pytest.approx(expected, rel=0.02)
    spiked = np.concatenate([np.full(90, 0.25), np.full(10, 0.75)])
    expected = 0.9 * 0.5 * 0.3 * 100 ** (-1 / 5)
    assert silverman_bandwidth(bin_sample(spiked, 0, 1)) == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.integers(1, 400), st.floats(0.01, 0.99))
def test_moments_and_quantiles_of_bins_are_those_of_the_values(
    seed: int, n: int, share: float
) -> None:
    sample = np.random.default_rng(seed).beta(0.7, 3, n)
    binned = bin_sample(sample, 0, 1)
    assert binned.size == n
    assert binned.mean() == pytest.approx(sample.mean(), abs=binned.width)
    assert binned.std() == pytest.approx(sample.std(), abs=binned.width)
    # as many values lie below as asked for, give or take those of one bin
    cut, bin_ = float(binned.quantile(share)), binned.width
    assert (sample < cut - bin_).sum() <= share * n + 1e-9
    assert (sample <= cut + bin_).sum() >= share * n - 1e-9
