"""Attention instability against nested loops with POT on whole maps, under every reading."""

import math
import statistics
import weakref
from dataclasses import dataclass, fields
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.scope.written_attention import PREFIX, Written, written
from tests.transport.map_pairs import whole_map_emd
from torch import Tensor

from vitscope.backbones.attention import QUERY_CHUNK, BlockAttention, QueryKeyAttention
from vitscope.scope import instability
from vitscope.scope import instability as instability_maps
from vitscope.scope.instability import (
    ATTENTION_READINGS,
    MEMBERSHIPS,
    ComparedTokens,
    ImageInstability,
    image_instability,
    read_maps,
)
from vitscope.scope.settings import AttentionReading, Membership
from vitscope.scope.views import Overlap
from vitscope.transport.emd import emd

Weights = NDArray[np.float64]
Flags = NDArray[np.bool_]
HEADS = 2


def cells_of_view(overlap: Overlap, view: int) -> list[int]:
    start = overlap.shift if view == 0 else 0
    along = range(start, start + overlap.grid - overlap.shift)
    return [row * overlap.grid + column for row, column in product(along, along)]


def distance(a: list[float], b: list[float], overlap: Overlap) -> float | None:
    """None where both maps are empty; D_grid where one is."""
    if not any(a) and not any(b):
        return None
    if not any(a) or not any(b):
        return math.sqrt(2) * (overlap.grid - overlap.shift - 1)
    shape = (overlap.grid - overlap.shift,) * 2
    return whole_map_emd(np.reshape(a, shape), np.reshape(b, shape))


def slow_instability(
    attention: tuple[Weights, Weights],
    outliers: tuple[Flags, Flags],
    overlap: Overlap,
    membership: Membership,
) -> dict[str, tuple[list[float], list[float]]]:
    """AttentionReading -> every distance of outlier tokens, and of the others."""
    one, other = cells_of_view(overlap, 0), cells_of_view(overlap, 1)
    flags = [(bool(outliers[0][i]), bool(outliers[1][j])) for i, j in zip(one, other, strict=True)]
    combine = {"either": any, "both": all, "first": lambda pair: pair[0]}[membership]
    found: dict[str, tuple[list[float], list[float]]] = {
        name: ([], []) for name in ATTENTION_READINGS
    }

    def note(reading: str, is_outlier: bool, a: list[float], b: list[float]) -> None:
        value = distance(a, b, overlap)
        if value is not None:
            found[reading][0 if is_outlier else 1].append(value)

    for head in range(attention[0].shape[0]):
        w, v = attention[0][head], attention[1][head]
        for token, (i, j) in enumerate(zip(one, other, strict=True)):
            is_outlier = combine(flags[token])
            note("query", is_outlier, [w[i, k] for k in one], [v[j, k] for k in other])
            note("key", is_outlier, [w[q, i] for q in one], [v[q, j] for q in other])
        received_one = [float(sum(w[q, k] for q in one)) for k in one]
        received_other = [float(sum(v[q, k] for q in other)) for k in other]
        for side in (True, False):
            a = [r * (f[0] is side) for r, f in zip(received_one, flags, strict=True)]
            b = [r * (f[1] is side) for r, f in zip(received_other, flags, strict=True)]
            note("received", side, a, b)
    return found


def random_attention(random: np.random.Generator, n: int) -> tuple[Weights, Weights]:
    """Return sparse probabilities: some rows are empty on the overlap, some columns everywhere."""
    views: list[Weights] = []
    for _ in range(2):
        rows = random.random((HEADS, n, n)) * (random.random((HEADS, n, n)) < 0.25)
        rows[:, random.random(n) < 0.2] = 0
        rows[:, :, random.random(n) < 0.2] = 0
        views.append(rows / np.maximum(rows.sum(-1, keepdims=True), 1e-12))
    return views[0], views[1]


def random_flags(random: np.random.Generator, n: int, share: float) -> tuple[Flags, Flags]:
    return random.random(n) < share, random.random(n) < share


def compare(
    attention: tuple[Weights, Weights],
    flags: tuple[Flags, Flags],
    overlap: Overlap,
    tokens: int = 0,
    image: str = "a.jpg",
    workers: int = 1,
) -> ImageInstability:
    chosen = ComparedTokens.choose(flags, overlap, tokens, (0, image))
    first, second = (
        read_maps(written(view), cells, [chosen.tokens])[0]
        for view, cells in zip(attention, (overlap.first, overlap.second), strict=True)
    )
    return image_instability((first, second), chosen, overlap, workers=workers)


@dataclass(frozen=True)
class GroupDistance:
    mean: float
    n: int
    n_missed: int


def groups_of(
    found: ImageInstability, reading: AttentionReading, membership: Membership = "either"
) -> tuple[GroupDistance, GroupDistance]:
    """Outlier tokens, and the others."""
    place = ATTENTION_READINGS.index(reading), MEMBERSHIPS.index(membership)
    figures = (array[place] for array in (found.emd, found.n_maps, found.n_missed))
    rows = zip(*figures, strict=True)
    out, non = (GroupDistance(float(mean), int(n), int(n_missed)) for mean, n, n_missed in rows)
    return out, non


def assert_same(one: ImageInstability, other: ImageInstability) -> None:
    for field in fields(ImageInstability):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def assert_group(found: GroupDistance, expected: list[float], overlap: Overlap) -> None:
    assert found.n == len(expected)
    mean = statistics.fmean(expected) if expected else math.nan
    # maps are kept in single precision
    assert found.mean == pytest.approx(mean, abs=2e-6, nan_ok=True)
    diameter = math.sqrt(2) * (overlap.side - 1)
    assert found.n_missed <= sum(value == pytest.approx(diameter) for value in expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(3, 1), (4, 1), (4, 2), (5, 2)]))
def test_equals_nested_loops_under_every_membership(seed: int, size: tuple[int, int]) -> None:
    random, overlap = np.random.default_rng(seed), Overlap(*size)
    attention = random_attention(random, overlap.grid**2)
    flags = random_flags(random, overlap.grid**2, random.choice([0.0, 0.1, 0.4]))
    found = compare(attention, flags, overlap)
    for membership in MEMBERSHIPS:
        expected = slow_instability(attention, flags, overlap, membership)
        for reading in ATTENTION_READINGS:
            groups = groups_of(found, reading, membership)
            for ours, distances in zip(groups, expected[reading], strict=True):
                assert_group(ours, distances, overlap)


def test_membership_decides_who_is_an_outlier() -> None:
    overlap, n = Overlap(4, 1), 16
    flags = np.zeros((2, n), bool)
    flags[0, overlap.first[[0, 1, 2]]] = True
    flags[1, overlap.second[[2, 3]]] = True
    attention = random_attention(np.random.default_rng(0), n)
    found = compare(attention, (flags[0], flags[1]), overlap)
    counts = dict(zip(MEMBERSHIPS, found.n_outliers, strict=True))
    assert counts == {"either": 4, "first": 3, "both": 1}


def test_the_same_attention_in_both_views_has_not_moved() -> None:
    overlap = Overlap(5, 1)
    random = np.random.default_rng(1)
    content = random.random((HEADS, overlap.n_cells, overlap.n_cells))
    views = np.full((2, HEADS, 25, 25), 0.5)
    flags = np.zeros((2, 25), bool)
    of_content = random.random(overlap.n_cells) < 0.3
    for view, cells in enumerate((overlap.first, overlap.second)):
        views[view][:, cells[:, None], cells] = content
        flags[view, cells] = of_content
    found = compare((views[0], views[1]), (flags[0], flags[1]), overlap)
    for reading in ATTENTION_READINGS:
        out, non = groups_of(found, reading)
        assert out.mean == pytest.approx(0, abs=1e-6)
        assert non.mean == pytest.approx(0, abs=1e-6)


def test_an_empty_side_counts_the_diameter_and_two_count_nothing() -> None:
    overlap, n = Overlap(4, 1), 16
    attention = (np.full((HEADS, n, n), 1 / n), np.full((HEADS, n, n), 1 / n))
    first, none = np.zeros(n, bool), np.zeros(n, bool)
    first[overlap.first[4]] = True
    out, non = groups_of(compare(attention, (first, none), overlap), "received")
    assert (out.mean, out.n, out.n_missed) == (pytest.approx(overlap.diameter), HEADS, HEADS)
    assert (non.n, non.n_missed) == (HEADS, 0)
    out, _ = groups_of(compare(attention, (none, none), overlap), "received")
    assert math.isnan(out.mean)
    assert (out.n, out.n_missed) == (0, 0)


def test_maps_that_are_empty_in_one_view_all_count_the_diameter() -> None:
    overlap, n = Overlap(4, 1), 16
    uniform, empty = np.full((HEADS, n, n), 1 / n), np.zeros((HEADS, n, n))
    none = np.zeros(n, bool)
    _, non = groups_of(compare((uniform, empty), (none, none), overlap), "query")
    n_maps = HEADS * overlap.n_cells
    assert (non.n, non.n_missed) == (n_maps, n_maps)
    assert non.mean == pytest.approx(overlap.diameter)


def identifying_attention(overlap: Overlap, weight: float) -> tuple[Weights, Weights]:
    """Return attention under which only the token's own place decides its distance."""
    n, cells = overlap.grid**2, overlap.n_cells
    views = np.zeros((2, 1, n, n))
    views[0, 0][:, overlap.first[0]] = 1
    for token in range(cells):
        views[1, 0, overlap.second[token], overlap.second[0]] = 1 - weight * (token / cells)
        views[1, 0, overlap.second[token], overlap.second[-1]] = weight * (token / cells)
    return views[0], views[1]


def test_the_draw_of_tokens_depends_on_the_key_alone() -> None:
    overlap = Overlap(6, 1)
    flags = (np.zeros(36, bool), np.zeros(36, bool))

    def mean(weight: float, image: str) -> float:
        found = compare(identifying_attention(overlap, weight), flags, overlap, 6, image)
        _, non = groups_of(found, "query")
        assert non.n == 6
        return non.mean

    # the distance is linear in the weight for every token, and so for one and the same draw
    assert mean(0.5, "a.jpg") == pytest.approx(0.5 * mean(1.0, "a.jpg"), abs=1e-6)
    means = [mean(1.0, f"{index}.jpg") for index in range(60)]
    assert len({round(value, 6) for value in means}) > 20
    whole = groups_of(compare(identifying_attention(overlap, 1.0), flags, overlap), "query")[1].mean
    error = statistics.stdev(means) / math.sqrt(len(means))
    assert statistics.fmean(means) == pytest.approx(whole, abs=4 * error)


def test_every_outlier_counts_however_few_others_are_drawn() -> None:
    random, overlap = np.random.default_rng(5), Overlap(5, 1)
    attention = (random.random((HEADS, 25, 25)), random.random((HEADS, 25, 25)))
    flags = random_flags(random, 25, 0.4)
    some, whole = (compare(attention, flags, overlap, tokens=n) for n in (2, 0))
    for reading in ("query", "key"):
        assert groups_of(some, reading)[0] == groups_of(whole, reading)[0]
        assert groups_of(some, reading)[1].n == 2 * HEADS
    assert groups_of(some, "received") == groups_of(whole, "received")
    assert_same(compare(attention, flags, overlap, tokens=1000), whole)
    assert_same(compare(attention, flags, overlap, workers=2), whole)


def test_all_maps_of_an_image_are_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    random, overlap = np.random.default_rng(5), Overlap(5, 1)
    attention = (random.random((HEADS, 25, 25)), random.random((HEADS, 25, 25)))
    flags = random_flags(random, 25, 0.4)
    batches: list[int] = []

    def counted(a: Weights, b: Weights, *, workers: int) -> object:
        batches.append(len(a))
        return emd(a, b, workers=workers)

    monkeypatch.setattr(instability, "emd", counted)
    compare(attention, flags, overlap, tokens=3)
    n_tokens = len(ComparedTokens.choose(flags, overlap, 3, (0, "a.jpg")).tokens)
    assert batches == [2 * HEADS * n_tokens + 2 * HEADS], "once a token, whatever the membership"


MAP_HEADS = 3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 7))
def test_maps_are_pieces_of_the_whole_matrix(seed: int, n_views: int, chunk: int) -> None:
    random, overlap = np.random.default_rng(seed), Overlap(6, 2)
    views = random.random((n_views, MAP_HEADS, 36, 36))
    tokens = [
        np.sort(random.choice(overlap.n_cells, random.integers(0, 9), replace=False))
        for _ in range(n_views)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(instability_maps, "QUERY_CHUNK", chunk)
        found = read_maps(written(*views), overlap.first, tokens)
    for maps, view, chosen in zip(found, views, tokens, strict=True):
        inside = view[:, overlap.first][:, :, overlap.first].astype(np.float32)
        np.testing.assert_array_equal(maps.query, inside[:, chosen])
        np.testing.assert_array_equal(maps.key, inside[:, :, chosen].swapaxes(1, 2))
        np.testing.assert_allclose(maps.received, inside.mean(1), rtol=1e-6)


def test_queries_and_keys_give_the_softmax_over_all_tokens() -> None:
    g = torch.Generator().manual_seed(0)
    overlap = Overlap(5, 1)
    query, key = torch.randn(2, 2, MAP_HEADS, PREFIX + 25, 8, generator=g)
    attention = QueryKeyAttention(query, key, PREFIX)
    scores = query.double() @ key.double().transpose(-1, -2)
    whole = scores.softmax(-1)[:, :, PREFIX:, PREFIX:].numpy()
    found = read_maps(attention, overlap.second, [np.asarray([0, 7]), np.asarray([3])])
    for maps, view, chosen in zip(found, whole, ([0, 7], [3]), strict=True):
        inside = view[:, overlap.second][:, :, overlap.second]
        assert maps.query.dtype == maps.key.dtype == maps.received.dtype == np.float32
        np.testing.assert_allclose(maps.query, inside[:, chosen], rtol=1e-5)
        np.testing.assert_allclose(maps.key, inside[:, :, chosen].swapaxes(1, 2), rtol=1e-5)
        np.testing.assert_allclose(maps.received, inside.mean(1), rtol=1e-5)


class Watched(Written):
    """Notes at each call how many row tensors of earlier calls are still alive."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__(weights)
        object.__setattr__(self, "given", list[weakref.ref[Tensor]]())
        object.__setattr__(self, "alive", list[int]())

    def rows(self, queries: Tensor) -> Tensor:
        given: list[weakref.ref[Tensor]] = getattr(self, "given")  # noqa: B009
        alive: list[int] = getattr(self, "alive")  # noqa: B009
        alive.append(sum(one() is not None for one in given))
        found = super().rows(queries)
        given.append(weakref.ref(found))
        return found


def test_no_more_than_a_chunk_of_rows_is_held_at_a_time() -> None:
    overlap = Overlap(16, 2)
    attention = Watched(written(np.random.default_rng(0).random((1, 256, 256))).weights)
    read_maps(attention, overlap.first, [np.asarray([5, 190])])
    assert len(attention.asked) == -(-overlap.n_cells // QUERY_CHUNK) > 2
    assert max(attention.asked) == QUERY_CHUNK
    assert sum(attention.asked) == overlap.n_cells, "each row is computed once"
    assert set(getattr(attention, "alive")) == {0}, "rows are let go before more are asked for"  # noqa: B009


def test_what_is_kept_holds_on_to_nothing_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view of a chunk would keep the whole chunk alive."""
    excess: list[int] = []
    honest = instability_maps._Kept.take

    def take(self: instability_maps._Kept, rows: Tensor, start: int) -> None:
        honest(self, rows, start)
        kept = (self.rows[-1], self.columns[-1])
        excess.extend(one.untyped_storage().nbytes() - 4 * one.numel() for one in kept)

    monkeypatch.setattr(instability_maps._Kept, "take", take)
    overlap = Overlap(16, 2)
    attention: BlockAttention = written(np.random.default_rng(0).random((2, 256, 256)))
    (maps,) = read_maps(attention, overlap.first, [np.asarray([5, 190])])
    assert len(excess) == 2 * -(-overlap.n_cells // QUERY_CHUNK)
    assert set(excess) == {0}
    for array, n in ((maps.query, 2 * 2 * 196), (maps.key, 2 * 2 * 196), (maps.received, 2 * 196)):
        # memory of a tensor that numpy borrows: no larger than what is shown
        assert torch.from_numpy(array).untyped_storage().nbytes() == 4 * n


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
