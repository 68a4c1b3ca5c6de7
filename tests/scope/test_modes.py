"""The dip test: the statistic against its definition, the null against other simulations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.scope.unimodal_fit import dip_by_definition

from vitscope.scope import modes as module
from vitscope.scope.modes import (
    DIP_LEVELS,
    DIP_QUANTILES,
    DIP_SIZES,
    SILVERMAN_DRAWS,
    SMALLEST_DIP_P,
    dip_p_value,
    dip_test,
    unimodality_p_value,
)

Values = NDArray[np.float64]


def modes(n: int, gap: float, share: float = 0.5, seed: int = 0) -> Values:
    random = np.random.default_rng(seed)
    upper = int(n * share)
    return np.concatenate([random.normal(size=n - upper), random.normal(gap, 1, upper)])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=4, max_size=14), st.booleans())
def test_it_is_the_distance_to_the_nearest_unimodal_distribution(
    cells: list[int], ties: bool
) -> None:
    sample = np.asarray(cells, dtype=np.float64)
    if not ties:
        sample = sample + np.linspace(0, 0.9, sample.size) ** 2
    assert dip_test(sample).statistic == pytest.approx(dip_by_definition(sample), abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_larger_samples_agree_with_the_definition_too(seed: int) -> None:
    random = np.random.default_rng(seed)
    for sample in (
        random.random(40),
        modes(40, 4.0, seed=seed),
        random.integers(0, 15, 60).astype(float),
    ):
        assert dip_test(sample).statistic == pytest.approx(dip_by_definition(sample), abs=1e-9)


# Made by an independent implementation (the diptest package, version 0.12)
OTHERS = [
    (np.asarray([0.0, 0.0, 1.0, 1.0]), 0.25),
    (np.arange(1.0, 8.0) ** 2, 0.07142857142857142),
    (np.sin(np.arange(50.0)), 0.07615593868776357),
    (np.cos(np.arange(2000.0) ** 2), 0.058950249182508005),
]


@pytest.mark.parametrize(("sample", "expected"), OTHERS)
def test_it_is_what_another_program_finds(sample: Values, expected: float) -> None:
    assert dip_test(sample).statistic == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.floats(-50, 50), st.floats(0.01, 100), st.booleans())
def test_it_depends_on_the_values_only_up_to_place_and_scale(
    seed: int, place: float, scale: float, mirrored: bool
) -> None:
    sample = modes(60, 3.0, seed=seed)
    moved = np.random.default_rng(1).permutation(place + scale * (-sample if mirrored else sample))
    assert dip_test(moved).statistic == pytest.approx(dip_test(sample).statistic, rel=1e-9)


def test_two_modes_dip_and_one_does_not() -> None:
    assert dip_test(modes(600, 5.0)).p_value == SMALLEST_DIP_P
    assert dip_test(modes(600, 0.0)).p_value > 0.5
    # of little mass, a mode is beyond the test
    assert dip_test(modes(600, 8.0, share=0.02)).p_value > 0.2


def test_under_the_uniform_distribution_the_p_value_is_uniform() -> None:
    random = np.random.default_rng(3)
    for n in (12, 70):
        p_values = np.asarray([dip_test(random.random(n)).p_value for _ in range(1500)])
        for level in (0.05, 0.1, 0.5):
            assert (p_values <= level).mean() == pytest.approx(level, abs=4 * np.sqrt(level / 1500))


# Quantiles of the dip of uniform samples as the same package tabulates them, from a million samples
# of each size
TABULATED = [
    (10, 0.95, 0.139611), (10, 0.99, 0.159684), (20, 0.95, 0.105130), (20, 0.99, 0.120624),
    (50, 0.95, 0.070274), (50, 0.99, 0.081200), (100, 0.95, 0.051128), (100, 0.99, 0.059024),
    (200, 0.95, 0.036842), (200, 0.99, 0.042686),
]  # fmt: skip


@pytest.mark.parametrize(("n", "level", "quantile"), TABULATED)
def test_the_null_is_what_another_simulation_found(n: int, level: float, quantile: float) -> None:
    assert dip_p_value(quantile, n) == pytest.approx(1 - level, rel=0.06)


def test_the_null_is_a_table_of_distributions() -> None:
    assert DIP_QUANTILES.shape == (DIP_SIZES.size, DIP_LEVELS.size)
    assert (np.diff(DIP_QUANTILES, axis=1) >= 0).all()
    assert (np.diff(DIP_SIZES) > 0).all()
    # it settles as the size grows; the last columns rest on few samples
    assert np.abs(DIP_QUANTILES[-1] / DIP_QUANTILES[-4] - 1)[:-4].max() < 0.02


@pytest.mark.parametrize("n", [4.0, 12.5, 300.0, 1e6])
def test_the_p_value_falls_as_the_dip_grows(n: float) -> None:
    p_values = [dip_p_value(dip, n) for dip in np.linspace(0.4 / n, 0.25, 300)]
    assert (np.diff(p_values) <= 0).all()
    assert p_values[0] == 1
    assert p_values[-1] == (pytest.approx(0.0, abs=0.02) if n == 4 else SMALLEST_DIP_P)


def test_where_many_samples_share_one_dip_the_p_value_counts_them_all() -> None:
    # of four values, more than half of all samples have the least dip there is
    assert dip_p_value(0.125, 4) > 0.95
    assert dip_p_value(0.126, 4) < 0.5


def test_dependent_values_count_as_fewer() -> None:
    sample = modes(500, 3.2)
    assert dip_test(sample).p_value < 0.05 < dip_test(sample, n_effective=60).p_value
    assert dip_test(sample).statistic == dip_test(sample, n_effective=60).statistic


def test_a_large_sample_is_thinned_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = modes(5000, 3.0)
    exact = dip_test(sample).statistic
    monkeypatch.setattr(module, "MAX_DIP_STEPS", 500)
    assert dip_test(sample).statistic == pytest.approx(exact, abs=1 / 500)
    assert dip_test(sample).statistic != exact


def test_too_few_values_say_nothing() -> None:
    assert np.isnan(dip_test(np.arange(3.0)).p_value)
    assert np.isnan(dip_test(np.arange(3.0)).statistic)
    assert dip_test(np.full(30, 0.3)).p_value == 1


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
    assert p_value == pytest.approx(1 / (SILVERMAN_DRAWS + 1))
    assert unimodality_p_value(sample, 0, 1, seed=1) == p_value


def test_a_large_sample_is_thinned_and_order_is_irrelevant() -> None:
    random = np.random.default_rng(2)
    sample = np.concatenate([random.normal(0.3, 0.03, 30_000), random.normal(0.6, 0.03, 9_000)])
    p_value = unimodality_p_value(sample, 0, 1, seed=0)
    assert p_value < 0.02
    assert unimodality_p_value(random.permutation(sample), 0, 1, seed=0) == p_value


def test_silvermans_test_counts_dependent_values_as_fewer() -> None:
    random = np.random.default_rng(4)
    sample = np.concatenate([random.normal(0.35, 0.08, 600), random.normal(0.65, 0.08, 400)])
    whole = unimodality_p_value(sample, 0, 1, seed=0)
    few = unimodality_p_value(sample, 0, 1, seed=0, n_effective=25)
    assert whole < 0.02 < few


def test_too_few_values_have_no_critical_bandwidth() -> None:
    assert np.isnan(unimodality_p_value(np.linspace(0.1, 0.9, 9), 0, 1, seed=0))
    assert np.isnan(unimodality_p_value(np.full(500, 0.3), 0, 1, seed=0))
    # only what lies on the axis counts
    assert np.isnan(unimodality_p_value(np.linspace(2, 3, 50), 0, 1, seed=0))
