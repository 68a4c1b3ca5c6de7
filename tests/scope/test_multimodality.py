"""Silverman's test: small p for two modes, large for one, the same for the same seed."""

import numpy as np
import pytest

from vitscope.scope.multimodality import N_BOOTSTRAP, unimodality_p_value


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_two_modes_are_seen(share: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    n = int(600 * share)
    sample = np.concatenate([random.normal(0.2, 0.05, 600 - n), random.normal(0.7, 0.05, n)])
    assert unimodality_p_value(sample, 0, 1, seed=seed) < 0.02


def test_one_mode_is_left_alone() -> None:
    random = np.random.default_rng(0)
    samples = [random.normal(0.5, 0.1, 400) for _ in range(6)]
    samples += [random.beta(2, 6, 400) for _ in range(6)]
    p_values = [unimodality_p_value(sample, 0, 1, seed=0) for sample in samples]
    # conservative: below 0.05 less often than one time in twenty
    assert min(p_values) > 0.01
    assert np.median(p_values) > 0.2


def test_the_p_value_is_never_zero_and_repeats() -> None:
    sample = np.concatenate([np.linspace(0.1, 0.15, 700), np.linspace(0.8, 0.85, 700)])
    p_value = unimodality_p_value(sample, 0, 1, seed=1)
    assert p_value == pytest.approx(1 / (N_BOOTSTRAP + 1))
    assert unimodality_p_value(sample, 0, 1, seed=1) == p_value


def test_a_large_sample_is_thinned_and_order_is_irrelevant() -> None:
    random = np.random.default_rng(2)
    sample = np.concatenate([random.normal(0.3, 0.03, 30_000), random.normal(0.6, 0.03, 9_000)])
    p_value = unimodality_p_value(sample, 0, 1, seed=0)
    assert p_value < 0.02
    assert unimodality_p_value(random.permutation(sample), 0, 1, seed=0) == p_value


def test_dependent_values_count_as_fewer() -> None:
    random = np.random.default_rng(4)
    sample = np.concatenate([random.normal(0.35, 0.08, 600), random.normal(0.65, 0.08, 400)])
    whole = unimodality_p_value(sample, 0, 1, seed=0)
    few = unimodality_p_value(sample, 0, 1, seed=0, n_effective=25)
    assert whole < 0.02 < few


def test_too_few_values_say_nothing() -> None:
    assert np.isnan(unimodality_p_value(np.linspace(0.1, 0.9, 9), 0, 1, seed=0))
    assert np.isnan(unimodality_p_value(np.full(500, 0.3), 0, 1, seed=0))
    # only what lies on the axis counts
    assert np.isnan(unimodality_p_value(np.linspace(2, 3, 50), 0, 1, seed=0))
