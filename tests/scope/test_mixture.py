"""A mixture that was drawn is found again, and its threshold is where both are as likely."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

from vitscope.scope.binned import Binned, bin_sample
from vitscope.scope.mixture import Mixture, fit_mixture

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


def component_densities(found: Mixture, x: float) -> tuple[float, float]:
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
