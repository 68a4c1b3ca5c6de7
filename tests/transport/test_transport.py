"""Exact transport against POT on whole maps, closed forms, and the axioms of a metric."""

import itertools
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.transport.map_pairs import (
    KINDS,
    MANY_SHAPES,
    SHAPES,
    Map,
    Shape,
    attention,
    features,
    whole_map_emd,
)

from vitscope.errors import TransportError
from vitscope.transport import emd as transport
from vitscope.transport import pot
from vitscope.transport.emd import cell_distances, emd

TOLERANCE = 1e-9

masses = st.one_of(
    st.just(0.0),
    st.sampled_from([1e-12, 1e-6, 1.0, 2.0]),
    st.floats(0, 10, allow_subnormal=False),
)
grids = st.tuples(st.integers(1, 5), st.integers(2, 5))


def maps_of(shape: Shape) -> st.SearchStrategy[Map]:
    return arrays(np.float64, shape, elements=masses).filter(lambda a: a.sum() > 0)


def several(n: int) -> st.SearchStrategy[tuple[Map, ...]]:
    return grids.flatmap(lambda shape: st.tuples(*[maps_of(shape)] * n))


@pytest.mark.parametrize(("shape", "n"), SHAPES)
def test_equals_pot_on_whole_maps(shape: Shape, n: int) -> None:
    random = np.random.default_rng(shape[0] * 100 + shape[1])
    pairs = [kind(random, shape) for kind in KINDS for _ in range(n)]
    ours = np.asarray(emd(np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs])))
    expected = np.asarray([whole_map_emd(a, b) for a, b in pairs])
    assert np.abs(ours - expected).max() <= TOLERANCE
    assert expected.max() > 0.1


def test_there_are_about_two_thousand_of_them() -> None:
    assert sum(n for _, n in SHAPES) * len(KINDS) >= 2000


@settings(max_examples=150, deadline=None)
@given(several(2))
def test_equals_pot_whatever_the_maps(pair: tuple[Map, Map]) -> None:
    assert emd(*pair) == pytest.approx(whole_map_emd(*pair), abs=TOLERANCE)


@settings(max_examples=80, deadline=None)
@given(several(3))
def test_is_a_metric(maps: tuple[Map, Map, Map]) -> None:
    a, b, c = maps
    assert emd(a, a) == 0
    assert emd(a, b) == pytest.approx(emd(b, a), abs=TOLERANCE)
    assert emd(a, c) <= emd(a, b) + emd(b, c) + TOLERANCE
    assert 0 <= emd(a, b) <= cell_distances(*a.shape).max() + TOLERANCE


@settings(max_examples=60, deadline=None)
@given(several(2), st.sampled_from([1e-300, 1e-9, 3.0, 1e308]))
def test_does_not_depend_on_the_scale_of_either_map(pair: tuple[Map, Map], scale: float) -> None:
    a, b = (np.where(m < 1e-6 * m.max(), 0, m / m.max()) for m in pair)
    assert emd(a * scale, b) == pytest.approx(emd(a, b), abs=TOLERANCE)
    assert emd(a, b * scale) == pytest.approx(emd(a, b), abs=TOLERANCE)


@pytest.mark.parametrize("shift", [(0, 1), (3, 0), (2, 3), (4, 4)])
def test_a_translation_costs_its_length(shift: tuple[int, int]) -> None:
    block = np.random.default_rng(0).random((4, 5))
    a, b = np.zeros((2, 8, 9))
    a[:4, :5] = block
    b[shift[0] : shift[0] + 4, shift[1] : shift[1] + 5] = block
    assert emd(a, b) == pytest.approx(np.hypot(*shift), abs=TOLERANCE)


def test_one_cell_against_many_is_a_weighted_mean_of_distances() -> None:
    random = np.random.default_rng(1)
    one, many = np.zeros((6, 7)), random.random((6, 7))
    one[4, 2] = 0.3
    expected = 0.0
    for row, column in itertools.product(range(6), range(7)):
        expected += many[row, column] * ((row - 4) ** 2 + (column - 2) ** 2) ** 0.5 / many.sum()
    assert emd(one, many) == pytest.approx(expected, abs=1e-12)
    assert emd(many, one) == pytest.approx(expected, abs=1e-12)


def test_opposite_corners_are_a_diagonal_apart() -> None:
    a, b = np.zeros((2, 13, 13))
    a[0, 0] = b[-1, -1] = 1
    assert emd(a, b) == pytest.approx(np.sqrt(2) * 12)


def test_rows_and_columns_are_not_mixed_up() -> None:
    a, b = np.zeros((2, 2, 9))
    a[0, 0], b[1, 0] = 1, 1
    assert emd(a, b) == 1
    c = np.zeros((2, 9))
    c[0, 8] = 1
    assert emd(a, c) == 8


def test_an_empty_map_has_no_distance() -> None:
    full, empty = np.ones((3, 3)), np.zeros((3, 3))
    assert np.isnan(emd(full, empty))
    assert np.isnan(emd(empty, empty))
    batch = emd(np.stack([full, empty, full]), np.stack([full, full, empty]))
    assert np.isnan(batch).tolist() == [False, True, True]


def test_takes_arrays_lists_and_tensors_of_any_real_type() -> None:
    random = np.random.default_rng(2)
    a, b = random.integers(0, 4, (2, 5, 4, 4)).astype(np.float64) + np.eye(4)
    expected = emd(a, b)
    for dtype in (np.float32, np.int64):
        np.testing.assert_array_equal(emd(a.astype(dtype), b.astype(dtype)), expected)
    for kind in (torch.float64, torch.float32, torch.bfloat16, torch.int32):
        tensors = torch.from_numpy(a).to(kind), torch.from_numpy(b).to(kind)
        np.testing.assert_array_equal(emd(*tensors), expected)
    grown = torch.from_numpy(a).requires_grad_()
    np.testing.assert_array_equal(emd(grown, torch.from_numpy(b)), expected)
    assert emd(a[0].tolist(), b[0].tolist()) == np.asarray(expected)[0]


def test_a_batch_is_its_pairs_and_leaves_its_input_alone() -> None:
    random = np.random.default_rng(3)
    a, b = random.random((2, 6, 5, 5))
    kept = a.copy(), b.copy()
    batch = emd(a, b)
    np.testing.assert_array_equal(batch, [emd(x, y) for x, y in zip(a, b, strict=True)])
    np.testing.assert_array_equal(a, kept[0])
    np.testing.assert_array_equal(b, kept[1])
    assert np.asarray(emd(a[:0], b[:0])).shape == (0,)


def test_two_workers_give_what_one_gives() -> None:
    random = np.random.default_rng(4)
    a, b = random.random((2, 3 * transport.PAIRS_PER_TASK + 5, 4, 4))
    np.testing.assert_array_equal(emd(a, b, workers=2), emd(a, b, workers=1))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1e-9])
@pytest.mark.parametrize("side", ["first", "second"])
def test_impossible_masses_are_refused_by_pair_and_side(bad: float, side: str) -> None:
    maps = {"first": np.ones((4, 2, 2)), "second": np.ones((4, 2, 2))}
    maps[side][2, 1, 0] = bad
    with pytest.raises(TransportError, match=rf"pair 2: its {side} map has NaN"):
        emd(maps["first"], maps["second"])


def test_shapes_must_agree() -> None:
    for a, b in [((2, 3), (3, 2)), ((4,), (4,)), ((2, 2, 2), (2, 2)), ((1, 1, 2, 2), (1, 1, 2, 2))]:
        with pytest.raises(TransportError, match=r"two maps \[H, W\] or two batches"):
            emd(np.ones(a), np.ones(b))


def test_an_unfinished_simplex_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "PIVOTS_PER_NODE", 0)
    monkeypatch.setattr(pot, "MAX_PIVOTS", 1)
    a, b = np.random.default_rng(5).random((2, 6, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(TransportError, match="gave up"):
            emd(a, b)


def test_masses_that_differ_by_a_factor_alone_have_no_distance() -> None:
    a = np.random.default_rng(6).random((300, 6, 7))
    np.testing.assert_array_equal(emd(a, 7.3 * a), 0)


def test_hardly_any_mass_far_away_still_counts() -> None:
    a, b = np.zeros((2, 9, 9))
    a[0, :2] = 1
    b[0, 0], b[0, 1], b[8, 0], b[8, 1] = 1, 1, 1e-12, 3e-12
    assert emd(a, b) == pytest.approx(whole_map_emd(a, b), abs=1e-15, rel=1e-3)


@pytest.mark.parametrize("kind", [features, attention])
def test_equals_pot_on_maps_like_ours(kind: Callable[..., tuple[Map, Map]]) -> None:
    random = np.random.default_rng(7)
    pairs = [kind(random, (side, side)) for side in (6, 13, 15) for _ in range(12)]
    assert [emd(*pair) for pair in pairs] == pytest.approx(
        [whole_map_emd(*pair) for pair in pairs], abs=TOLERANCE
    )


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "n"), MANY_SHAPES)
def test_equals_pot_on_many_whole_maps(shape: Shape, n: int) -> None:
    random = np.random.default_rng(shape[0] * 100 + shape[1] + 1)
    pairs = [kind(random, shape) for kind in KINDS for _ in range(n)]
    solved = transport.transport(np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs]))
    expected = np.asarray([whole_map_emd(a, b) for a, b in pairs])
    assert np.abs(solved.distances - expected).max() <= TOLERANCE
    assert solved.n_fallbacks == 0


def test_the_slow_comparison_has_fifty_thousand_pairs() -> None:
    assert sum(n for _, n in MANY_SHAPES) * len(KINDS) >= 50_000


def test_a_grid_without_cells_has_no_distance() -> None:
    assert np.isnan(emd(np.ones((2, 0, 3)), np.ones((2, 0, 3)))).all()


def test_complex_maps_are_refused() -> None:
    with pytest.raises(TransportError, match="real numbers, got complex"):
        emd(np.ones((2, 2), complex), np.ones((2, 2)))


@pytest.mark.parametrize("workers", [1, 3])
def test_the_first_bad_pair_of_a_long_batch_is_named(workers: int) -> None:
    a, b = np.ones((2, 1000, 2, 2))
    a[900, 0, 0], b[444, 0, 0], b[777, 1, 1] = np.nan, -1, np.inf
    with pytest.raises(TransportError, match="pair 444: its second map"):
        emd(a, b, workers=workers)


def test_read_only_strided_and_reversed_arrays_are_taken() -> None:
    a = np.random.default_rng(8).random((6, 5, 4))
    expected = emd(np.ascontiguousarray(a[::-2].swapaxes(1, 2)), np.ones((3, 4, 5)))
    a.flags.writeable = False
    np.testing.assert_array_equal(emd(a[::-2].swapaxes(1, 2), np.ones((3, 4, 5))), expected)


def test_few_pairs_are_shared_out_among_workers() -> None:
    share = transport._pairs_per_task
    assert share(192, 2) == 32  # six tasks, not one
    assert share(10**6, 2) == share(5, 1) == transport.PAIRS_PER_TASK
