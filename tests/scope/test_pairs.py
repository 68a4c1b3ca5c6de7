"""Maps, distances and null placements of exemplar pairs, whatever batch they come in."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.sparse import csr_array
from tests.scope.toy_dictionary import random_pairs, slow_code, toy_sae
from tests.transport.map_pairs import whole_map_emd

from vitscope.scope.exemplars import Wanted, wanted_by_image
from vitscope.scope.pairs import (
    PairMaps,
    PairScores,
    feature_maps,
    feature_reach,
    ordered_pairs,
    place_at_random,
    placement_keys,
    score_maps,
    score_stream,
)
from vitscope.scope.views import Overlap

GRID, WIDTH, FEATURES = 5, 6, 10
SAE = toy_sae(WIDTH, FEATURES, threshold=0.8)
OVERLAP = Overlap(GRID, 2)


def random_tokens(n_views: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n_views, GRID * GRID, WIDTH, generator=g, dtype=torch.float64)


def assert_equal_pairs(one: PairScores, other: PairScores) -> None:
    for f in fields(PairScores):
        np.testing.assert_array_equal(getattr(one, f.name), getattr(other, f.name), f.name)


def test_feature_maps_equal_a_slow_loop() -> None:
    tokens, wanted = random_tokens(2), torch.tensor([7, 0, 3])
    first, second = feature_maps(SAE, tokens, wanted, OVERLAP)
    expected = np.zeros((2, 3, OVERLAP.side, OVERLAP.side))
    for view, start in ((0, OVERLAP.shift), (1, 0)):
        for index, feature in enumerate(wanted.tolist()):
            for row in range(OVERLAP.side):
                for column in range(OVERLAP.side):
                    token = tokens[view, (row + start) * GRID + column + start].numpy()
                    expected[view, index, row, column] = slow_code(SAE, token, feature)
    np.testing.assert_allclose(first, expected[0], atol=1e-12)
    np.testing.assert_allclose(second, expected[1], atol=1e-12)
    assert 0 < (expected > 0).mean() < 1


def test_reach_equals_a_slow_loop_and_a_feature_fires_from_1_on() -> None:
    tokens, wanted = random_tokens(2), torch.tensor([7, 0, 3])
    (own, beyond) = feature_reach(SAE, tokens, wanted, OVERLAP)
    margins = np.empty((2, GRID, GRID, 3))
    for view, row, column in np.ndindex(2, GRID, GRID):
        x = tokens[view, row * GRID + column] - SAE.b_dec
        for index, feature in enumerate(wanted.tolist()):
            pre = float(x @ SAE.w_enc[:, feature] + SAE.b_enc[feature])
            margins[view, row, column, index] = pre / SAE.threshold
    s = OVERLAP.shift
    on_overlap = margins[0, s:, s:], margins[1, : GRID - s, : GRID - s]
    expected = np.full((2, 2, 3), np.nan)
    for view, index in np.ndindex(2, 3):
        expected[0, view, index] = on_overlap[view][..., index].max()
        other = on_overlap[1 - view][..., index]
        peak = np.asarray(np.unravel_index(other.argmax(), other.shape)) + s  # in the image
        for row, column in np.ndindex(GRID, GRID):
            place = np.asarray([row, column]) + view * s
            is_own = (place < s).any() if view == 0 else (place >= GRID).any()
            if is_own and np.abs(place - peak).max() <= s + 1:
                found = margins[view, row, column, index]
                expected[1, view, index] = np.fmax(expected[1, view, index], found)
    assert np.isfinite(expected[1]).any()
    np.testing.assert_allclose(own, expected[0], rtol=1e-12)
    np.testing.assert_allclose(beyond, expected[1], rtol=1e-12)
    maps = np.stack(feature_maps(SAE, tokens, wanted, OVERLAP))
    np.testing.assert_array_equal(own > 1, maps.reshape(2, 3, -1).any(-1))


@pytest.mark.parametrize(
    ("reach", "beyond", "kind"),
    [(0.99, 2.0, "flicker"), (0.5, 0.0, "flicker"), (0.49, 1.0, "border"), (0.2, 0.9, "departure")],
)
@pytest.mark.parametrize("silent", ["first", "second"])
def test_a_miss_is_told_by_the_silent_view(
    reach: float, beyond: float, kind: str, silent: str
) -> None:
    pair = random_pairs(np.random.default_rng(0), 1, 1)
    other = "second" if silent == "first" else "first"
    values = {
        f"cells_{silent}": 0, f"cells_{other}": 3, f"reach_{silent}": reach, f"reach_{other}": 3.0,
        f"beyond_{silent}": beyond, f"beyond_{other}": 3.0,
    }  # fmt: skip
    missed = replace(pair, **{name: np.asarray([value]) for name, value in values.items()})
    assert {name for name, rows in missed.misses.items() if rows[0]} == {kind}
    unknown = replace(missed, **{f"reach_{silent}": np.asarray([np.nan])})
    assert unknown.untold[0] and not any(rows[0] for rows in unknown.misses.values())


def test_the_views_are_not_interchangeable() -> None:
    first, second = feature_maps(SAE, random_tokens(2), torch.arange(FEATURES), OVERLAP)
    swapped = feature_maps(SAE, random_tokens(2).flip(0), torch.arange(FEATURES), OVERLAP)
    assert not np.array_equal(first, swapped[1])
    assert not np.array_equal(second, swapped[0])


def sparse_maps(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    maps = random.random((2, n, 5, 5)) * (random.random((2, n, 5, 5)) < 0.3)
    maps[:, :, 0, 0] += 0.1
    return maps[0], maps[1]


def pair_maps(first: np.ndarray, second: np.ndarray) -> PairMaps:
    return PairMaps.of(first, second)


KEYS = [(feature, f"photo-{feature % 3}.jpg") for feature in range(9)]


def null_of(
    rows: Sequence[int], keys: Sequence[tuple[int, str]], *, seed: int = 0, draws: int = 2
) -> np.ndarray:
    first, second = sparse_maps(9, 1)
    at = list(rows)
    features, names = np.asarray([feature for feature, _ in keys]), [name for _, name in keys]
    maps = pair_maps(first[at], second[at])
    return score_maps(maps, features, names, null_draws=draws, seed=seed, workers=1)[1]


def test_distances_are_those_of_the_maps() -> None:
    first, second = sparse_maps(9, 1)
    maps, nine = pair_maps(first, second), np.arange(9)
    distances, null = score_maps(maps, nine, [""] * 9, null_draws=0, seed=0, workers=2)
    expected = [whole_map_emd(a, b) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(distances, expected, atol=1e-9)
    assert np.isnan(null).all()


def test_null_draws_do_not_depend_on_the_batch() -> None:
    whole = null_of(range(9), KEYS)
    order = np.random.default_rng(2).permutation(9).tolist()
    np.testing.assert_array_equal(null_of(order, [KEYS[i] for i in order]), whole[order])
    single = [float(null_of([i], [KEYS[i]])[0]) for i in range(9)]
    np.testing.assert_array_equal(single, whole)


def test_null_draws_depend_on_seed_feature_and_image() -> None:
    base = null_of([4], [(4, "a.jpg")])
    assert null_of([4], [(4, "a.jpg")]) == base
    assert null_of([4], [(4, "a.jpg")], seed=1) != base
    assert null_of([4], [(5, "a.jpg")]) != base
    assert null_of([4], [(4, "b.jpg")]) != base


def test_the_null_is_the_mean_over_random_placements() -> None:
    # of two single cells: the mean distance of two uniform cells, in closed form
    first, second = np.zeros((2, 40, 4, 4))
    first[:, 1, 1], second[:, 0, 2] = 3.0, 0.5
    maps, features = pair_maps(first, second), np.arange(40)
    null = score_maps(maps, features, ["a"] * 40, null_draws=60, seed=0, workers=1)[1]
    cells = [(r, c) for r in range(4) for c in range(4)]
    expected = np.mean([np.hypot(a[0] - b[0], a[1] - b[1]) for a in cells for b in cells])
    assert null.mean() == pytest.approx(float(expected), abs=4 * 0.9 / np.sqrt(40 * 60))


def wanted_features(n_images: int) -> dict[int, Wanted]:
    random = np.random.default_rng(3)
    ranks = np.zeros(FEATURES, np.int64)
    wanted: dict[int, Wanted] = {}
    for image in range(100, 100 + n_images):
        features = np.sort(random.choice(FEATURES, 4, replace=False))
        wanted[image] = Wanted(features, ranks[features])
        ranks[features] += 1
    return wanted


def score(images: Sequence[int], tokens: torch.Tensor, wanted: dict[int, Wanted]) -> PairScores:
    rows = [row for image in images for row in (2 * (image - 100), 2 * (image - 100) + 1)]
    ids = [f"{image}.png" for image in images]
    batch = (tokens[rows], images, ids)
    return score_stream(SAE, [batch], wanted, OVERLAP, null_draws=2, seed=5, workers=1)[0]


def in_order(*chunks: PairScores) -> PairScores:
    return ordered_pairs(PairScores.concatenated(chunks), None)


def test_scores_do_not_depend_on_how_images_are_batched() -> None:
    wanted, tokens = wanted_features(8), 0.6 * random_tokens(16, seed=4)
    images = list(wanted)
    whole = in_order(score(images, tokens, wanted))
    for size in (1, 3, 5):
        parts = [score(images[a : a + size], tokens, wanted) for a in range(0, len(images), size)]
        assert_equal_pairs(in_order(*parts[::-1]), whole)
    assert whole.kept.any()
    assert whole.missed.any()
    assert (~whole.kept & ~whole.missed).any()


def test_scores_equal_a_slow_loop() -> None:
    wanted, tokens = wanted_features(5), 0.6 * random_tokens(10, seed=6)
    found = score(list(wanted), tokens, wanted)
    row = 0
    for position, (image, asked) in enumerate(wanted.items()):
        pair = tokens[2 * position : 2 * position + 2]
        for feature, rank in zip(asked.features, asked.ranks, strict=True):
            a, b = (m[0] for m in feature_maps(SAE, pair, torch.tensor([feature]), OVERLAP))
            assert (found.feature[row], found.rank[row], found.image[row]) == (feature, rank, image)
            assert found.cells_first[row] == np.count_nonzero(a)
            assert found.cells_second[row] == np.count_nonzero(b)
            if a.any() and b.any():
                assert found.emd[row] == pytest.approx(whole_map_emd(a, b), abs=1e-9)
                assert np.isfinite(found.null[row])
            else:
                assert np.isnan(found.emd[row])
                assert np.isnan(found.null[row])
            row += 1
    assert row == len(found.feature)


def test_a_batch_in_which_nothing_fires_scores_nothing() -> None:
    silent = torch.zeros(2, GRID * GRID, WIDTH, dtype=torch.float64) + SAE.b_dec
    found = score([100], silent, wanted_features(1))
    assert not found.kept.any()
    assert not found.missed.any()
    assert np.isnan(found.emd).all()


def test_exemplars_are_grouped_by_image() -> None:
    feature, rank = np.asarray([3, 1, 1, 2, 3]), np.asarray([0, 0, 1, 0, 1])
    grouped = wanted_by_image(feature, rank, np.asarray([7, 7, 2, 2, 5]))
    assert list(grouped) == [2, 5, 7]
    assert {i: (w.features.tolist(), w.ranks.tolist()) for i, w in grouped.items()} == {
        2: ([1, 2], [1, 0]),
        5: ([3], [1]),
        7: ([1, 3], [0, 0]),
    }


def test_joining_sorts_rows_by_feature_and_rank() -> None:
    pairs = random_pairs(np.random.default_rng(0), 30, 4)
    parts = [
        PairScores(**{f.name: getattr(pairs, f.name)[rows] for f in fields(pairs)})
        for rows in (slice(20, 30), slice(0, 7), slice(7, 20))
    ]
    joined = in_order(*parts)
    order = sorted(range(30), key=lambda i: (pairs.feature[i], pairs.rank[i]))
    for f in fields(pairs):
        np.testing.assert_array_equal(getattr(joined, f.name), getattr(pairs, f.name)[order])


def test_the_cross_null_is_the_distance_to_the_next_exemplars_second_view() -> None:
    wanted, tokens = wanted_features(12), random_tokens(24, seed=4)
    images = list(wanted)
    ids = [f"{image}.png" for image in images]
    batches = [(tokens[:6], images[:3], ids[:3]), (tokens[6:], images[3:], ids[3:])]
    found, maps = score_stream(SAE, batches, wanted, OVERLAP, null_draws=0, seed=0, workers=1)
    pairs = ordered_pairs(found, maps)
    order = np.lexsort((found.rank, found.feature))
    side = maps.side
    first, second = (
        view.toarray().reshape(-1, side, side)[order] for view in (maps.first, maps.second)
    )
    seen = 0
    for feature in range(FEATURES):
        rows = [r for r in np.flatnonzero(pairs.feature == feature) if pairs.kept[r]]
        for place, row in enumerate(rows):
            if len(rows) == 1:
                assert np.isnan(pairs.cross[row])
                continue
            following = rows[(place + 1) % len(rows)]
            expected = whole_map_emd(first[row], second[following])
            assert pairs.cross[row] == pytest.approx(expected, abs=1e-9)
            seen += 1
    assert seen > 10
    assert np.isnan(pairs.cross[~pairs.kept]).all()
    # what does not change: the pair's own distance
    assert_equal_pairs(replace(pairs, cross=found.cross[order]), found.take(order))


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
