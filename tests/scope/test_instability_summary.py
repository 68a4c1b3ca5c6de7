"""Means, errors and bootstrap intervals over images, against the whole sample and SciPy."""

import math
import statistics
import tracemalloc
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import bootstrap

from vitscope.scope.instability import ATTENTION_READINGS, INSTABILITY_SHAPE, MEMBERSHIPS
from vitscope.scope.instability_summary import (
    GroupInstability,
    InstabilitySums,
    ReadingInstability,
)
from vitscope.scope.views import Overlap

OVERLAPS = (Overlap(6, 1), Overlap(6, 3))
AXES = (len(OVERLAPS), *INSTABILITY_SHAPE)
NAN = float("nan")

Sample = tuple[list[str], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]


def random_sample(random: np.random.Generator, n: int, empty: float = 0.2) -> Sample:
    """Return ids and figures [n, 2, 3, 3, 2]; a share of the groups is empty."""
    emd = random.gamma(3.0, 1.0, (n, *AXES)) + 100 * np.arange(AXES[0])[:, None, None, None]
    n_maps, n_missed = random.integers(1, 9, (n, *AXES)), random.integers(0, 2, (n, *AXES))
    none = random.random((n, *AXES)) < empty
    emd[none], n_maps[none], n_missed[none] = NAN, 0, 0
    return [f"{index}.jpg" for index in range(n)], emd, n_maps, n_missed


def summed(sample: Sample, *, seed: int = 0, step: int = 10**9) -> tuple[ReadingInstability, ...]:
    ids, emd, n_maps, n_missed = sample
    sums = InstabilitySums(len(OVERLAPS), seed)
    for start in range(0, len(ids), step):
        rows = slice(start, start + step)
        sums.add(ids[rows], emd[rows], n_maps[rows], n_missed[rows])
    return sums.summarise(OVERLAPS)


def flat(rows: tuple[ReadingInstability, ...]) -> NDArray[np.float64]:
    def numbers(value: Any) -> list[float]:
        if isinstance(value, tuple):
            return [number for part in value for number in numbers(part)]
        return [] if isinstance(value, str) else [float(value)]

    return np.asarray([numbers(astuple(row)) for row in rows])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30))
def test_means_and_errors_are_those_of_the_whole_sample(seed: int, n: int) -> None:
    sample = random_sample(np.random.default_rng(seed), n, empty=0.4)
    rows = iter(summed(sample, step=4))
    for s, overlap in enumerate(OVERLAPS):
        for m, membership in enumerate(MEMBERSHIPS):
            for r, reading in enumerate(ATTENTION_READINGS):
                row = next(rows)
                assert (row.shift, row.membership, row.reading) == (
                    overlap.shift, membership, reading,
                )  # fmt: skip
                assert row.diameter == overlap.diameter
                for g, group in enumerate((row.outlier, row.other)):
                    place = (slice(None), s, r, m, g)
                    assert_group(group, sample[1][place], sample[2][place], sample[3][place])
                ratio = row.outlier.mean / row.other.mean
                assert row.ratio == pytest.approx(ratio, nan_ok=True)
    assert not list(rows)


def assert_group(
    group: GroupInstability,
    emd: NDArray[np.float64],
    n_maps: NDArray[np.int64],
    n_missed: NDArray[np.int64],
) -> None:
    values = [float(value) for value in emd if np.isfinite(value)]
    n = len(values)
    mean = statistics.fmean(values) if n else NAN
    error = statistics.stdev(values) / math.sqrt(n) if n > 1 else NAN
    assert group.mean == pytest.approx(mean, rel=1e-12, nan_ok=True)
    assert group.error == pytest.approx(error, rel=1e-9, nan_ok=True)
    assert (group.n_images, group.n_maps, group.n_missed) == (n, n_maps.sum(), n_missed.sum())
    weights = n_maps[np.isfinite(emd)]
    pooled = float(np.average(values, weights=weights)) if n else NAN
    assert group.pooled == pytest.approx(pooled, rel=1e-12, nan_ok=True)
    for low, value, high in (
        (group.low, group.mean, group.high),
        (group.pooled_low, group.pooled, group.pooled_high),
    ):
        assert math.isnan(low) == math.isnan(high) == (n < 2)
        assert n < 2 or min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
        assert n < 8 or low <= value <= high


def test_intervals_are_those_of_an_ordinary_bootstrap() -> None:
    random = np.random.default_rng(1)
    sample = random_sample(random, 300, empty=0.0)
    row = summed(sample)[0]
    _, emd, n_maps, _ = sample
    out, non = emd[:, 0, 0, 0, 0], emd[:, 0, 0, 0, 1]
    weights = n_maps[:, 0, 0, 0, 0]

    def pooled(x: Any, w: Any, axis: int = -1) -> Any:
        return (x * w).sum(axis) / w.sum(axis)

    def ratio(x: Any, y: Any, axis: int = -1) -> Any:
        return x.mean(axis) / y.mean(axis)

    for found, data, statistic in (
        ((row.outlier.low, row.outlier.high), (out,), np.mean),
        ((row.other.low, row.other.high), (non,), np.mean),
        ((row.outlier.pooled_low, row.outlier.pooled_high), (out, weights), pooled),
        ((row.ratio_low, row.ratio_high), (out, non), ratio),
    ):
        theirs = bootstrap(
            data, statistic, paired=True, method="percentile", n_resamples=4000, rng=random
        ).confidence_interval
        half = (theirs.high - theirs.low) / 2
        np.testing.assert_allclose(found, (theirs.low, theirs.high), rtol=0, atol=0.15 * half)


def test_the_ratio_resamples_both_groups_over_the_same_images() -> None:
    ids, emd, n_maps, n_missed = random_sample(np.random.default_rng(2), 200, empty=0.0)
    emd[..., 0] = 3 * emd[..., 1]  # an image that moves more does so in both groups
    for row in summed((ids, emd, n_maps, n_missed)):
        assert (row.ratio_low, row.ratio, row.ratio_high) == pytest.approx((3.0, 3.0, 3.0))


def test_nineteen_of_twenty_intervals_hold_the_true_mean() -> None:
    n_trials, n = 60, 80
    held = n_intervals = 0
    for trial in range(n_trials):
        random = np.random.default_rng(trial)
        emd = random.gamma(4.0, 1.0, (n, *AXES))
        ones = np.ones((n, *AXES), np.int64)
        rows = summed(([f"{trial}/{i}" for i in range(n)], emd, ones, 0 * ones))
        groups = [group for row in rows for group in (row.outlier, row.other)]
        held += sum(group.low <= 4.0 <= group.high for group in groups)
        n_intervals += len(groups)
    assert 0.925 <= held / n_intervals <= 0.965


def test_the_bootstrap_depends_on_seed_and_image_alone() -> None:
    ids, emd, n_maps, n_missed = sample = random_sample(np.random.default_rng(3), 40)
    whole = flat(summed(sample))
    for step in (1, 7, 40):
        np.testing.assert_allclose(flat(summed(sample, step=step)), whole, rtol=1e-9)
    order = np.random.default_rng(4).permutation(40)
    shuffled = [ids[i] for i in order], emd[order], n_maps[order], n_missed[order]
    np.testing.assert_allclose(flat(summed(shuffled)), whole, rtol=1e-9)
    assert (flat(summed(sample, seed=1)) != whole).any()
    others = [f"b/{one}" for one in ids], emd, n_maps, n_missed
    ends = flat(summed(others)) - whole
    assert np.nanmax(np.abs(ends)) > 0


def test_a_mean_far_from_its_spread_keeps_its_digits() -> None:
    ids, emd, n_maps, n_missed = random_sample(np.random.default_rng(5), 200, empty=0.0)
    plain = summed((ids, emd, n_maps, n_missed), step=30)
    far = summed((ids, emd + 1e7, n_maps, n_missed), step=30)
    for one, other in zip(plain, far, strict=True):
        assert other.outlier.error == pytest.approx(one.outlier.error, rel=1e-6)


def test_what_is_not_defined_is_nan_and_warns_of_nothing() -> None:
    ids, emd, n_maps, n_missed = random_sample(np.random.default_rng(6), 5, empty=0.0)
    emd[..., 0], n_maps[..., 0] = NAN, 0
    emd[1:, ..., 1], n_maps[1:, ..., 1] = NAN, 0
    row = summed((ids, emd, n_maps, n_missed))[0]
    assert math.isnan(row.outlier.mean)
    assert math.isnan(row.outlier.pooled)
    assert row.outlier.n_images == 0
    assert row.other.mean == emd[0, 0, 0, 0, 1]
    assert math.isnan(row.other.error)
    assert math.isnan(row.other.low)
    assert math.isnan(row.ratio)
    emd[:] = 0.0
    still = summed((ids, emd, np.ones_like(n_maps), n_missed))[0]
    assert (still.outlier.mean, still.outlier.low, still.outlier.high) == (0.0, 0.0, 0.0)
    assert math.isnan(still.ratio)
    assert math.isnan(still.ratio_low)


def test_memory_does_not_grow_with_the_images() -> None:
    def peak(n_pieces: int) -> int:
        tracemalloc.start()
        sums = InstabilitySums(len(OVERLAPS), 0)
        for piece in range(n_pieces):
            _, emd, n_maps, n_missed = random_sample(np.random.default_rng(piece), 32)
            sums.add([f"{piece}/{i}" for i in range(32)], emd, n_maps, n_missed)
        sums.summarise(OVERLAPS)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)  # what is imported or cached on first use
    assert peak(30) < 1.05 * peak(3)
