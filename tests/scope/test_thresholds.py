"""Where a histogram is cut: valleys between modes of a density that loses nothing."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

from vitscope.scope.modes import FINE_BINS, Binned, bin_sample, density, silverman_bandwidth
from vitscope.scope.thresholds import (
    NARROWEST,
    NormalMixture,
    Valley,
    find_valleys,
    fit_mixture,
    otsu_threshold,
)

Sample = NDArray[np.float64]


def two_gaussians(first: float, second: float, share: float, seed: int = 0) -> Sample:
    random = np.random.default_rng(seed)
    n = int(4000 * share)
    return np.concatenate([random.normal(first, 0.04, 4000 - n), random.normal(second, 0.04, n)])


def valley_of(
    sample: Sample,
    min_share: float = 0.05,
    bandwidth: Callable[[Binned], Sample] = silverman_bandwidth,
) -> Valley:
    counts = bin_sample(sample, 0, 1).counts
    one = Binned(0.0, 1.0, counts[None])
    return find_valleys(one, min_share=min_share, bandwidth=bandwidth)[0]


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
    even = find_valleys(Binned(0.0, 1.0, np.ones((1, FINE_BINS))), min_share=0.0)[0]
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
    centres = (np.arange(FINE_BINS) + 0.5) / FINE_BINS
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
    sample = random.choice((np.arange(FINE_BINS) + 0.5) / FINE_BINS, n)
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


def test_otsu_cuts_many_samples_as_each_alone() -> None:
    random = np.random.default_rng(0)
    samples = [bin_sample(random.beta(a, 3, 200), 0, 1) for a in (0.5, 2.0, 9.0)]
    together = Binned(0.0, 1.0, np.stack([one.counts for one in samples]))
    np.testing.assert_array_equal(
        otsu_threshold(together), [otsu_threshold(one) for one in samples]
    )


CASES = [
    ((0.2, 0.7), (0.05, 0.08), (0.7, 0.3)),
    ((0.3, 0.5), (0.03, 0.06), (0.5, 0.5)),
    ((0.25, 0.8), (0.06, 0.03), (0.98, 0.02)),
    ((0.3, 0.6), (0.08, 0.02), (0.9, 0.1)),
]


def drawn(
    means: tuple[float, ...], spreads: tuple[float, ...], weights: tuple[float, ...], n: int
) -> NDArray[np.float64]:
    random = np.random.default_rng(0)
    parts = zip(means, spreads, weights, strict=True)
    sample = np.concatenate([random.normal(m, s, int(n * w)) for m, s, w in parts])
    return sample[(sample > 0) & (sample < 1)]


def log_likelihood(sample: NDArray[np.float64], means: tuple[float, ...],
                   spreads: tuple[float, ...], weights: tuple[float, ...]) -> float:  # fmt: skip
    parts = zip(means, spreads, weights, strict=True)
    return float(np.log(sum(w * norm.pdf(sample, m, s) for m, s, w in parts)).mean())


@pytest.mark.parametrize(("means", "spreads", "weights"), CASES)
def test_a_known_mixture_is_found_again(
    means: tuple[float, float], spreads: tuple[float, float], weights: tuple[float, float]
) -> None:
    sample = drawn(means, spreads, weights, 20_000)
    found = fit_mixture(bin_sample(sample, 0, 1), 0.005)
    assert found.means == pytest.approx(means, abs=0.01)
    assert found.spreads == pytest.approx(spreads, rel=0.08)
    assert found.weights == pytest.approx(weights, abs=0.01)
    # no worse than the truth
    ours = log_likelihood(sample, found.means, found.spreads, found.weights)
    assert ours >= log_likelihood(sample, means, spreads, weights) - 1e-5
    constant = -0.5 * np.log(2 * np.pi)
    assert found.log_likelihood + constant == pytest.approx(ours, abs=1e-4)


@pytest.mark.parametrize(("means", "spreads", "weights"), CASES)
def test_at_the_threshold_both_components_are_equally_likely(
    means: tuple[float, float], spreads: tuple[float, float], weights: tuple[float, float]
) -> None:
    found = fit_mixture(bin_sample(drawn(means, spreads, weights, 20_000), 0, 1), 0.005)
    assert found.means[0] < found.threshold < found.means[1]
    low, high = component_densities(found, found.threshold)
    assert low == pytest.approx(high, rel=1e-6)
    before, after = found.threshold - 1e-3, found.threshold + 1e-3
    assert np.subtract(*component_densities(found, before)) > 0
    assert np.subtract(*component_densities(found, after)) < 0


def component_densities(found: NormalMixture, x: float) -> tuple[float, float]:
    parts = zip(found.means, found.spreads, found.weights, strict=True)
    low, high = (float(w * norm.pdf(x, m, s)) for m, s, w in parts)
    return low, high


def test_the_likeliest_of_several_fits_is_taken() -> None:
    # from its middle the climb ends between the first two modes, at a lower likelihood
    sample = drawn((0.2, 0.35, 0.9), (0.03, 0.06, 0.02), (0.5, 0.45, 0.05), 10_000)
    found = fit_mixture(bin_sample(sample, 0, 1), 0.005)
    assert found.means[1] == pytest.approx(0.9, abs=0.01)
    assert 0.6 < found.threshold < 0.85


def test_an_atom_does_not_swallow_a_component() -> None:
    random = np.random.default_rng(1)
    sample = np.concatenate([np.zeros(500), random.normal(0.5, 0.1, 500)])
    found = fit_mixture(bin_sample(sample, 0, 1), 0.02)
    assert found.spreads[0] == pytest.approx(0.02)
    assert 0.02 < found.threshold < 0.3


def test_where_one_component_is_the_likelier_everywhere_there_is_no_threshold() -> None:
    assert np.isnan(fit_mixture(bin_sample(np.full(50, 0.4), 0, 1), 0.01).threshold)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 300))
def test_any_sample_has_a_fit(seed: int, n: int) -> None:
    sample = np.random.default_rng(seed).beta(0.3, 0.6, n)
    found = fit_mixture(bin_sample(sample, 0, 1), 0.01)
    assert sum(found.weights) == pytest.approx(1)
    assert min(found.spreads) >= 0.01 - 1e-12
    assert np.isnan(found.threshold) or found.means[0] < found.threshold < found.means[1]
    mirrored = Binned(0.0, 1.0, bin_sample(sample, 0, 1).counts * 7)
    assert fit_mixture(mirrored, 0.01).means == pytest.approx(found.means, rel=1e-6)
