"""Attention instability against nested loops with POT on whole maps, under every reading."""

import math
import statistics
from itertools import product
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from map_pairs import whole_map_emd
from numpy.typing import NDArray

from vitscope.scope.instability import (
    READINGS,
    GroupDistance,
    ImageInstability,
    image_instability,
    summarise_group,
)
from vitscope.scope.outliers import Membership
from vitscope.scope.views import Overlap

Weights = NDArray[np.float64]
Flags = NDArray[np.bool_]
MEMBERSHIPS: tuple[Membership, ...] = get_args(Membership)
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
    """Reading -> every distance of outlier tokens, and of the others."""
    one, other = cells_of_view(overlap, 0), cells_of_view(overlap, 1)
    flags = [(bool(outliers[0][i]), bool(outliers[1][j])) for i, j in zip(one, other, strict=True)]
    combine = {"either": any, "both": all, "first": lambda pair: pair[0]}[membership]
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in READINGS}

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
    membership: Membership = "either",
    tokens: int = 0,
    image: str = "a.jpg",
    workers: int = 1,
) -> ImageInstability:
    return image_instability(
        attention,
        flags,
        overlap,
        membership=membership,
        tokens_per_image=tokens,
        key=(0, image),
        workers=workers,
    )


def assert_group(found: GroupDistance, expected: list[float], overlap: Overlap) -> None:
    assert found.n == len(expected)
    mean = statistics.fmean(expected) if expected else math.nan
    assert found.mean == pytest.approx(mean, abs=1e-9, nan_ok=True)
    diameter = math.sqrt(2) * (overlap.side - 1)
    assert found.n_missed <= sum(value == pytest.approx(diameter) for value in expected)


@pytest.mark.parametrize("membership", MEMBERSHIPS)
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(3, 1), (4, 1), (4, 2), (5, 2)]))
def test_equals_nested_loops(membership: Membership, seed: int, size: tuple[int, int]) -> None:
    random, overlap = np.random.default_rng(seed), Overlap(*size)
    attention = random_attention(random, overlap.grid**2)
    flags = random_flags(random, overlap.grid**2, random.choice([0.0, 0.1, 0.4]))
    found = compare(attention, flags, overlap, membership)
    expected = slow_instability(attention, flags, overlap, membership)
    assert tuple(found.by_reading) == READINGS
    for reading, groups in expected.items():
        for ours, distances in zip(found.by_reading[reading], groups, strict=True):
            assert_group(ours, distances, overlap)


def test_membership_decides_who_is_an_outlier() -> None:
    overlap, n = Overlap(4, 1), 16
    flags = np.zeros((2, n), bool)
    flags[0, overlap.first[[0, 1, 2]]] = True
    flags[1, overlap.second[[2, 3]]] = True
    attention = random_attention(np.random.default_rng(0), n)
    counts = {
        membership: compare(attention, (flags[0], flags[1]), overlap, membership).n_outliers
        for membership in MEMBERSHIPS
    }
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
    for out, non in found.by_reading.values():
        assert out.mean == pytest.approx(0, abs=1e-12)
        assert non.mean == pytest.approx(0, abs=1e-12)


def test_an_empty_side_counts_the_diameter_and_two_count_nothing() -> None:
    overlap, n = Overlap(4, 1), 16
    attention = (np.full((HEADS, n, n), 1 / n), np.full((HEADS, n, n), 1 / n))
    first, none = np.zeros(n, bool), np.zeros(n, bool)
    first[overlap.first[4]] = True
    out, non = compare(attention, (first, none), overlap).by_reading["received"]
    assert (out.mean, out.n, out.n_missed) == (pytest.approx(overlap.diameter), HEADS, HEADS)
    assert (non.n, non.n_missed) == (HEADS, 0)
    out, _ = compare(attention, (none, none), overlap).by_reading["received"]
    assert math.isnan(out.mean)
    assert (out.n, out.n_missed) == (0, 0)


def test_maps_that_are_empty_in_one_view_all_count_the_diameter() -> None:
    overlap, n = Overlap(4, 1), 16
    uniform, empty = np.full((HEADS, n, n), 1 / n), np.zeros((HEADS, n, n))
    none = np.zeros(n, bool)
    _, non = compare((uniform, empty), (none, none), overlap).by_reading["query"]
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
        found = compare(identifying_attention(overlap, weight), flags, overlap, "either", 6, image)
        assert found.by_reading["query"][1].n == 6
        return found.by_reading["query"][1].mean

    # the distance is linear in the weight for every token, and so for one and the same draw
    assert mean(0.5, "a.jpg") == pytest.approx(0.5 * mean(1.0, "a.jpg"), abs=1e-9)
    means = [mean(1.0, f"{index}.jpg") for index in range(60)]
    assert len({round(value, 9) for value in means}) > 20
    whole = compare(identifying_attention(overlap, 1.0), flags, overlap).by_reading["query"][1].mean
    error = statistics.stdev(means) / math.sqrt(len(means))
    assert statistics.fmean(means) == pytest.approx(whole, abs=4 * error)


def test_every_outlier_counts_however_few_others_are_drawn() -> None:
    random, overlap = np.random.default_rng(5), Overlap(5, 1)
    attention = (random.random((HEADS, 25, 25)), random.random((HEADS, 25, 25)))
    flags = random_flags(random, 25, 0.4)
    some, whole = (compare(attention, flags, overlap, tokens=n) for n in (2, 0))
    for reading in ("query", "key"):
        assert some.by_reading[reading][0] == whole.by_reading[reading][0]
        assert some.by_reading[reading][1].n == 2 * HEADS
    assert some.by_reading["received"] == whole.by_reading["received"]
    assert compare(attention, flags, overlap, tokens=1000) == whole
    assert compare(attention, flags, overlap, workers=2) == whole


def test_a_group_is_averaged_over_images_that_have_it() -> None:
    means = np.asarray([1.0, math.nan, 4.0, 2.5])
    group = summarise_group(means, np.asarray([2.0, 0, 6, 4]), np.asarray([1.0, 0, 2, 0]))
    values = [1.0, 4.0, 2.5]
    assert group.mean == pytest.approx(2.5)
    assert group.error == pytest.approx(statistics.stdev(values) / math.sqrt(3))
    assert (group.n_images, group.n_maps, group.n_missed) == (3, 12, 3)
    assert group.pooled == pytest.approx((2 * 1 + 6 * 4 + 4 * 2.5) / 12)


def test_a_group_that_no_image_has_is_not_a_number() -> None:
    nothing = summarise_group(np.full(3, math.nan), np.zeros(3), np.zeros(3))
    assert math.isnan(nothing.mean)
    assert math.isnan(nothing.pooled)
    assert nothing.n_images == 0
    single = summarise_group(np.asarray([2.0]), np.ones(1), np.zeros(1))
    assert single.mean == 2
    assert math.isnan(single.error)
