"""Which tokens of an image are compared: one seeded draw that serves every membership."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitscope.scope.instability import MEMBERSHIPS, ComparedTokens
from vitscope.scope.outliers import Membership
from vitscope.scope.views import Overlap


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 12))
def test_one_draw_serves_every_membership(seed: int, n_others: int) -> None:
    random, overlap = np.random.default_rng(seed), Overlap(5, 1)
    flags = random.random(25) < 0.3, random.random(25) < 0.3
    chosen = ComparedTokens.choose(flags, overlap, n_others, (seed, "a.jpg"))
    one, other = flags[0][overlap.first], flags[1][overlap.second]
    rules = {"either": one | other, "first": one, "both": one & other}
    assert len(set(chosen.tokens)) == len(chosen.tokens)
    for membership in MEMBERSHIPS:
        is_outlier = rules[membership]
        out, others = chosen.groups(membership)
        np.testing.assert_array_equal(chosen.tokens[out], np.flatnonzero(is_outlier))
        assert not is_outlier[chosen.tokens[others]].any()
        n_left = int((~is_outlier).sum())
        assert others.sum() == (min(n_others, n_left) if n_others else n_left)
    either = chosen.groups("either")
    assert (either[0] | either[1]).all(), "no token is compared that no membership asks for"


@pytest.mark.parametrize("membership", MEMBERSHIPS)
def test_every_other_token_has_the_same_chance(membership: Membership) -> None:
    overlap, n_draws, n_others = Overlap(5, 1), 3000, 4
    flags = np.zeros((2, 25), bool)
    flags[0, overlap.first[[0, 5, 9]]] = True
    flags[1, overlap.second[[5, 6]]] = True
    counts = np.zeros(overlap.n_cells)
    for image in range(n_draws):
        chosen = ComparedTokens.choose((flags[0], flags[1]), overlap, n_others, (0, image))
        counts[chosen.tokens[chosen.groups(membership)[1]]] += 1
    left = {"either": 12, "first": 13, "both": 15}[membership]
    assert (counts > 0).sum() == left, "an outlier of one view is drawn where it counts as none"
    share = n_others / left
    error = np.sqrt(share * (1 - share) / n_draws)
    np.testing.assert_allclose(counts[counts > 0] / n_draws, share, atol=5 * error)


def test_overlaps_of_one_size_at_two_shifts_have_draws_of_their_own() -> None:
    one, other = (
        ComparedTokens.choose((none, none), overlap, 5, (0, "a.jpg")).order
        for overlap, none in (
            (Overlap(6, 1), np.zeros(36, bool)),
            (Overlap(7, 2), np.zeros(49, bool)),
        )
    )
    assert len(one) == len(other) == 25
    assert (one != other).any()
