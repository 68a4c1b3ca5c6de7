"""Bootstraps against plain resampling, and what an interval covers."""

import numpy as np
import pytest
from numpy.typing import NDArray

from vitscope.scope import bootstrap as module
from vitscope.scope.bootstrap import (
    N_DRAWS,
    effective_size,
    image_weights,
    interval_of,
    resampled,
    resampled_images,
)
from vitscope.scope.modes import Binned, bin_rows, bin_sample

Rows = NDArray[np.float64]


def joined(samples: list[Binned]) -> Rows:
    return np.concatenate([sample.counts for sample in samples])


def clustered(n_images: int, per_image: int, between: float, seed: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    offsets = random.normal(0.5, between, (n_images, 1))
    return np.clip(offsets + random.normal(0, 0.05, (n_images, per_image)), 0, 0.9999)


def test_resampled_means_spread_like_those_of_values_drawn_again() -> None:
    sample = np.random.default_rng(0).beta(2, 5, 300)
    draws = list(resampled(bin_sample(sample, 0, 1), 0, "test"))
    means = np.concatenate([draw.mean() for draw in draws])
    assert means.size == N_DRAWS
    assert (joined(draws).sum(1) == 300).all()
    assert means.mean() == pytest.approx(sample.mean(), abs=0.002)
    assert means.std() == pytest.approx(sample.std() / np.sqrt(300), rel=0.1)


def test_images_are_drawn_whole() -> None:
    rows = clustered(40, 25, 0.1)
    per_image = bin_rows(rows, 0, 1)
    draws = list(resampled_images(per_image, 0, "test"))
    assert (joined(draws).sum(1) == rows.size).all()
    means = np.concatenate([draw.mean() for draw in draws])
    between = rows.mean(1).std() / np.sqrt(40)
    # not the much smaller spread that independent tokens would give
    assert means.std() == pytest.approx(between, rel=0.1)
    assert means.std() > 3 * rows.std() / np.sqrt(rows.size)


def test_draws_repeat_and_depend_on_seed_and_purpose() -> None:
    binned = bin_sample(np.random.default_rng(0).random(50), 0, 1)

    def first(seed: int, purpose: str) -> Rows:
        return next(iter(resampled(binned, seed, purpose))).counts

    np.testing.assert_array_equal(first(0, "a"), first(0, "a"))
    assert (first(0, "a") != first(1, "a")).any()
    assert (first(0, "a") != first(0, "b")).any()


def test_blocks_add_up_to_all_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAWS_AT_ONCE", 300)
    sizes = [len(block) for block in image_weights(7, 0, "test")]
    assert sizes == [300, 300, 300, 100]
    assert all((block.sum(1) == 7).all() for block in image_weights(7, 0, "test"))


def test_an_interval_is_of_the_draws_that_have_a_value() -> None:
    values = np.arange(1000.0)
    found = interval_of(values)
    assert (found.low, found.high) == pytest.approx((24.975, 974.025))
    assert (found.found, found.n_draws) == (1, 1000)
    some = np.where(np.arange(1000) % 4 == 0, values, np.nan)
    assert interval_of(some).found == 0.25
    assert interval_of(some).low == pytest.approx(24.9)
    assert np.isnan(interval_of(np.full(10, np.nan)).low)
    assert interval_of(np.full(10, np.nan)).found == 0


def test_intervals_of_a_mean_cover_it_as_often_as_they_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "N_DRAWS", 200)
    random = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        binned = bin_sample(random.beta(2, 3, 80), 0, 1)
        found = interval_of(np.concatenate([d.mean() for d in resampled(binned, seed, "mean")]))
        covered += found.low <= 0.4 <= found.high
    assert 0.89 <= covered / 200 <= 0.99


def test_independent_tokens_count_in_full_and_repeated_ones_once() -> None:
    alone = np.random.default_rng(2).random((400, 20))
    assert effective_size(bin_rows(alone, 0, 1)) == pytest.approx(alone.size, rel=0.1)
    repeated = np.repeat(np.random.default_rng(3).random((400, 1)), 20, axis=1)
    assert effective_size(bin_rows(repeated, 0, 1)) == pytest.approx(400, rel=0.02)
    assert effective_size(bin_rows(alone[:1], 0, 1)) == 20


def test_the_effective_size_says_how_much_a_share_varies() -> None:
    shares, sizes = [], []
    for seed in range(300):
        rows = clustered(60, 30, 0.04, seed)
        shares.append((rows < 0.5).mean())
        sizes.append(effective_size(bin_rows(rows, 0, 1)))
    assert np.var(shares) == pytest.approx(0.25 / np.mean(sizes), rel=0.3)
