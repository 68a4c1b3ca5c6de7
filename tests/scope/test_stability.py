"""Agreement of scores against scikit-free independent code, and known cases."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from tests.scope.toy_dictionary import random_pairs

from vitscope.scope.settings import ScopeSettings
from vitscope.scope.stability import (
    LEAST_FEATURES,
    agreement,
    cohens_kappa,
    match_features,
    spearman,
    within_run,
)


def two_modes(n: int, seed: int) -> np.ndarray:
    """Scores of local features near 0.05 and, one in five, of global ones near 0.6."""
    random = np.random.default_rng(seed)
    values = np.where(np.arange(n) % 5 == 0, 0.6, 0.05) + 0.02 * random.standard_normal(n)
    return np.clip(values, 0, 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 40), st.integers(1, 5))
def test_spearman_is_scipys(seed: int, n: int, levels: int) -> None:
    one, other = np.random.default_rng(seed).integers(0, levels + 1, (2, n)).astype(float)
    found = spearman(one, other)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        assert np.isnan(found)
    else:
        expected: Any = spearmanr(one, other)
        assert found == pytest.approx(expected.statistic, abs=1e-12)


@pytest.mark.parametrize(
    ("table", "expected"),
    # both high, one only, other only, neither; the second is the textbook's 20, 5, 10, 15
    [((5, 0, 0, 5), 1.0), ((20, 5, 10, 15), 0.4), ((0, 5, 5, 0), -1.0), ((25, 25, 25, 25), 0.0)],
)
def test_kappa_of_known_tables(table: tuple[int, int, int, int], expected: float) -> None:
    one = np.repeat([True, True, False, False], table)
    other = np.repeat([True, False, True, False], table)
    assert cohens_kappa(one, other) == pytest.approx(expected)
    assert np.isnan(cohens_kappa(np.zeros(4, bool), np.zeros(4, bool)))


def test_a_score_agrees_with_itself() -> None:
    scores = two_modes(500, 0)
    found = agreement("nothing", scores, scores)
    assert (found.n, found.spearman, found.kappa, found.same_group) == (500, 1.0, 1.0, 1.0)
    assert (found.high_overlap, found.mean_gap, found.mean_shift) == (1.0, 0.0, 0.0)
    assert found.gamma == found.other_gamma
    assert 0.1 < found.gamma < 0.55


def test_noise_blurs_ranks_and_leaves_groups() -> None:
    # repeated noise: ranks within a mode are chance, modes are not
    found = agreement("noise", two_modes(2000, 1), two_modes(2000, 2))
    assert found.kappa == found.same_group == 1.0
    assert 0.3 < found.spearman_low < found.spearman < found.spearman_high < 0.8
    assert found.spearman_high - found.spearman_low < 0.1


def test_unrelated_scores_agree_by_chance() -> None:
    one = two_modes(2000, 3)
    other = np.random.default_rng(0).permutation(one)
    found = agreement("shuffled", one, other)
    assert found.spearman_low < 0 < found.spearman_high
    assert found.kappa_low < 0 < found.kappa_high
    assert found.same_group > 0.6  # which is why kappa stands beside it


def test_features_without_both_scores_are_left_out() -> None:
    one, other = two_modes(60, 4), two_modes(60, 5)
    one[:10], other[-10:] = np.nan, np.nan
    found = agreement("gaps", one, other)
    assert found.n == 40
    one[LEAST_FEATURES - 1 + 10 :] = np.nan
    few = agreement("too few", one, other)
    assert few.n == LEAST_FEATURES - 1
    assert np.isnan([few.spearman, few.kappa, few.gamma]).all()


def test_a_gamma_by_hand_is_not_found_anew() -> None:
    found = agreement("x", two_modes(100, 6), two_modes(100, 7), gamma=0.3)
    assert (found.gamma, found.other_gamma) == (0.3, 0.3)


def test_a_runs_own_pairs_give_every_comparison() -> None:
    pairs = random_pairs(np.random.default_rng(0), 3000, 60)
    pairs.rank[:] = np.arange(3000) % 16
    ids = [f"{image}.jpg" for image in pairs.image]
    rows = list(within_run(pairs, ids, 60, 7.0, ScopeSettings(), seed=0))
    changes = [row.change for row in rows]
    assert changes == [
        "8 exemplars instead of 16",
        "4 exemplars instead of 16",
        "exemplars of one half of the images, of the other",
        "a miss counts «drop», not «max»",
        "a miss counts «zero», not «max»",
        "divided by the relocation null (at most 1)",
    ]
    by_change = dict(zip(changes, rows, strict=True))
    # half of the exemplars are part of the whole: nearer than two separate halves
    assert by_change[changes[0]].spearman > by_change[changes[2]].spearman
    assert by_change[changes[4]].mean_shift < by_change[changes[3]].mean_shift < 0
    assert rows == list(within_run(pairs, ids, 60, 7.0, ScopeSettings(), seed=0))


def test_matching_finds_a_permuted_and_noisy_dictionary() -> None:
    g = torch.Generator().manual_seed(0)
    one = torch.nn.functional.normalize(torch.randn(300, 64, generator=g), dim=1)
    order = torch.randperm(300, generator=g)
    noisy = one[order] + 0.03 * torch.randn(300, 64, generator=g)
    other = torch.nn.functional.normalize(noisy, dim=1)
    other[:50] = torch.nn.functional.normalize(torch.randn(50, 64, generator=g), dim=1)
    found = match_features(one, other)
    assert len(found.one) == 250
    np.testing.assert_array_equal(order.numpy()[found.other], found.one)
    assert found.cosine.min() > 0.9
    assert len(match_features(one, -one).one) == 0
