"""Random placement: the same masses, distinct cells, every cell as likely, no matter the batch."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.sparse import csr_array

from vitscope.scope.pairs import PairMaps, place_at_random, placement_keys


def some_maps(n: int, n_cells: int, density: float, seed: int = 0) -> csr_array:
    random = np.random.default_rng(seed)
    values = random.uniform(0.1, 2, (n, n_cells)).astype(np.float32)
    return csr_array(values * (random.random((n, n_cells)) < density))


def keys_of(n: int, seed: int = 0) -> np.ndarray:
    return placement_keys(np.arange(n), ["a.jpg"] * n, seed=seed)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 12), st.integers(1, 36), st.sampled_from([0.1, 0.6, 1.0]))
def test_masses_are_kept_and_cells_are_distinct(n: int, n_cells: int, density: float) -> None:
    maps = some_maps(n, n_cells, density)
    placed = place_at_random(maps, keys_of(n), draw=0, view=0)
    np.testing.assert_array_equal(placed.data, maps.data)
    np.testing.assert_array_equal(placed.indptr, maps.indptr)
    assert placed.shape == maps.shape
    for start, stop in zip(placed.indptr[:-1], placed.indptr[1:], strict=True):
        cells = placed.indices[start:stop]
        assert len(set(cells.tolist())) == len(cells)
        assert ((cells >= 0) & (cells < n_cells)).all()


@pytest.mark.parametrize("n_entries", [1, 3, 5])
def test_every_choice_of_cells_is_as_likely(n_entries: int) -> None:
    # five cells: 5, 60 or 120 ordered choices
    n = 60_000
    dense = np.zeros((n, 5))
    dense[:, :n_entries] = 1
    maps = csr_array(dense)
    cells = place_at_random(maps, keys_of(n), draw=1, view=0).indices.reshape(n, n_entries)
    _, counts = np.unique(cells @ 5 ** np.arange(n_entries), return_counts=True)
    assert counts.size == {1: 5, 3: 60, 5: 120}[n_entries]
    assert stats.chisquare(counts).pvalue > 1e-3


def test_draws_and_views_are_independent() -> None:
    n = 20_000
    dense = np.zeros((n, 4))
    dense[:, 0] = 1
    maps, keys = csr_array(dense), keys_of(n)
    drawn = [
        place_at_random(maps, keys, draw=draw, view=view).indices
        for draw in range(2)
        for view in range(2)
    ]
    for one in range(4):
        for other in range(one):
            table = np.histogram2d(drawn[one], drawn[other], bins=4)[0]
            found: Any = stats.chi2_contingency(table)
            assert found.pvalue > 1e-3


def test_a_placement_depends_on_its_key_alone() -> None:
    maps = some_maps(40, 35, 0.4)
    names = [f"{row % 3}.jpg" for row in range(40)]
    keys = placement_keys(np.arange(40), names, seed=2)
    whole = place_at_random(maps, keys, draw=0, view=1)
    rows = np.random.default_rng(0).permutation(40)[:17]
    own = placement_keys(rows, [names[row] for row in rows], seed=2)
    part = place_at_random(maps[rows], own, draw=0, view=1)
    np.testing.assert_array_equal(part.toarray(), whole.toarray()[rows])
    other = placement_keys(np.arange(40), names, seed=3)
    assert (place_at_random(maps, other, draw=0, view=1).indices != whole.indices).mean() > 0.8
    assert len(np.unique(keys)) == 40


def test_maps_survive_the_disk_and_the_joining() -> None:
    first, second = some_maps(9, 16, 0.3, seed=1), some_maps(9, 16, 0.3, seed=2)
    maps = PairMaps(first, second, 4)
    restored = PairMaps.from_tensors(maps.to_tensors(), 4)
    joined = PairMaps.joined([restored.take(np.arange(4)), restored.take(np.arange(4, 9))])
    for side in ("first", "second"):
        found, expected = getattr(joined, side), getattr(maps, side)
        np.testing.assert_array_equal(found.toarray(), expected.toarray())
    shuffled = np.asarray([8, 0, 0, 3])
    np.testing.assert_array_equal(maps.take(shuffled).first.toarray(), first.toarray()[shuffled])
