"""Misses by strength: counted against a loop, drawn bin by bin."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.container import BarContainer
from tests.scope.toy_dictionary import random_pairs

from vitscope.figures.misses import STRENGTHS, miss_rates, plot_misses
from vitscope.scope.pairs import MISS_KINDS, PairScores


def pairs_of(seed: int, n: int = 200) -> PairScores:
    return random_pairs(np.random.default_rng(seed), n, 5)


@given(st.integers(0, 1000))
def test_rates_are_those_of_a_loop(seed: int) -> None:
    pairs = pairs_of(seed)
    n, missed = np.zeros(len(STRENGTHS), int), np.zeros((len(MISS_KINDS), len(STRENGTHS)))
    for row in range(len(pairs.feature)):
        if not (pairs.cells_first[row] or pairs.cells_second[row]):
            continue
        strength = max(pairs.reach_first[row], pairs.reach_second[row])
        at = max(i for i, low in enumerate(STRENGTHS) if strength >= low)
        n[at] += 1
        for i, kind in enumerate(MISS_KINDS):
            missed[i, at] += pairs.misses[kind][row]
    rates = miss_rates(pairs)
    np.testing.assert_array_equal(rates.n_pairs, n)
    np.testing.assert_allclose(rates.missed[:, n > 0], missed[:, n > 0] / n[n > 0])
    assert np.isnan(rates.missed[:, n == 0]).all()


def test_each_kind_is_stacked_on_the_last_and_counts_stand_above() -> None:
    rates, figure = miss_rates(pairs_of(1)), plot_misses(pairs_of(1))
    ax = figure.axes[0]
    bars = [one for one in ax.containers if isinstance(one, BarContainer)]
    heights = np.asarray([[bar.get_height() for bar in one] for one in bars])
    np.testing.assert_allclose(heights, np.nan_to_num(rates.missed))
    starts = np.asarray([[bar.get_y() for bar in one] for one in bars])
    np.testing.assert_allclose(starts[1:], heights.cumsum(0)[:-1])
    first, *others = [text.get_text() for text in ax.texts]
    assert first == f"{rates.n_pairs[0]:,} pairs"
    assert others == [f"{n:,}" for n in rates.n_pairs[1:]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(MISS_KINDS)


def test_an_sae_without_thresholds_says_so() -> None:
    nothing = PairScores.empty()
    assert "no pair of a feature with a threshold" in {
        text.get_text() for text in plot_misses(nothing).axes[0].texts
    }
