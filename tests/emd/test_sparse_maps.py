"""Maps as cells and values: the same distances as from whole maps, whoever made them."""

import numpy as np
import pytest
import torch
from tests.emd.map_pairs import Map, features

from vitscope.emd.sparse_maps import SparseMaps
from vitscope.emd.transport import emd
from vitscope.errors import TransportError

SHAPE = (6, 9)


@pytest.fixture(scope="module")
def maps() -> tuple[Map, Map]:
    random = np.random.default_rng(0)
    pairs = [features(random, SHAPE) for _ in range(300)]
    first, second = (np.stack(side) for side in zip(*pairs, strict=True))
    first[17], second[40] = 0, 0
    return first, second


def test_sparse_maps_have_the_distances_of_dense_ones(maps: tuple[Map, Map]) -> None:
    expected = np.asarray(emd(*maps))
    first, second = (SparseMaps.from_dense(side) for side in maps)
    assert len(first) == 300
    for workers in (1, 2):
        np.testing.assert_array_equal(emd(first, second, workers=workers), expected)
    np.testing.assert_array_equal(emd(first, maps[1]), expected)
    np.testing.assert_array_equal(emd(torch.from_numpy(maps[0]), second), expected)
    assert np.flatnonzero(np.isnan(expected)).tolist() == [17, 40]
    np.testing.assert_array_equal(first.dense(), maps[0])
    np.testing.assert_array_equal(first.dense(slice(5, 8)), maps[0][5:8])


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")  # torch, to whoever makes one
def test_sparse_tensors_are_taken_in_each_layout(maps: tuple[Map, Map]) -> None:
    expected = emd(*maps)
    whole = [torch.from_numpy(side) for side in maps]
    np.testing.assert_array_equal(emd(*(w.to_sparse() for w in whole)), expected)
    flat = [w.reshape(len(w), -1) for w in whole]
    for layout in (torch.sparse_coo, torch.sparse_csr):
        sparse = [SparseMaps.from_torch(f.to_sparse(layout=layout), SHAPE) for f in flat]
        np.testing.assert_array_equal(emd(*sparse), expected)
    half = [w.bfloat16().to_sparse().requires_grad_() for w in whole]
    rounded = emd(*(w.bfloat16() for w in whole))
    np.testing.assert_array_equal(emd(*half), rounded)


def test_order_repeats_zeros_and_scale_do_not_matter() -> None:
    whole = np.zeros((1, 3, 4))
    whole[0, 2, 1], whole[0, 0, 3], whole[0, 1, 1] = 3, 2, 1
    other = np.random.default_rng(1).random((1, 3, 4))
    cells, values = [3, 9, 5, 9, 0], [2e-300, 1e-300, 1e-300, 2e-300, 0.0]
    given = SparseMaps(np.array(cells), np.array(values), np.array([0, 5]), (3, 4))
    np.testing.assert_allclose(given.dense() * 1e300, whole)
    assert emd(given, other) == pytest.approx(np.asarray(emd(whole, other)), abs=1e-12)
    one, three = torch.tensor(cells), torch.tensor([0, 5])
    two = torch.tensor(values, dtype=torch.float64)
    same = SparseMaps(one, two, three, (3, 4))  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(emd(same, other), emd(given, other))
    np.testing.assert_array_equal(emd(given, given), 0)


def test_no_maps_and_empty_maps() -> None:
    nothing = np.zeros(0)
    none = SparseMaps(nothing, nothing, np.zeros(1), (3, 4))  # pyright: ignore[reportArgumentType]
    assert np.asarray(emd(none, none)).shape == (0,)
    empty = SparseMaps(nothing, nothing, np.zeros(3), (3, 4))  # pyright: ignore[reportArgumentType]
    assert np.isnan(emd(empty, np.ones((2, 3, 4)))).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_impossible_masses_are_refused_by_pair_and_side(bad: float) -> None:
    good = SparseMaps.from_dense(np.eye(4).reshape(1, 4, 4).repeat(600, 0))
    values = good.values.copy()
    values[4 * 555 + 2] = bad
    wrong = SparseMaps(good.indices, values, good.offsets, good.shape)
    with pytest.raises(TransportError, match="pair 555: its first map has NaN"):
        emd(wrong, good)
    with pytest.raises(TransportError, match="pair 555: its second map has NaN"):
        emd(good, wrong, workers=2)


@pytest.mark.parametrize(
    ("indices", "n_values", "offsets", "message"),
    [
        ([0, 1], 3, [0, 2], "2 indices but 3 values"),
        ([0, 1], 2, [0, 1], "offsets run from 0 to 2"),
        ([0, 1], 2, [1, 2], "offsets run from 0 to 2"),
        ([0, 1], 2, [0, 2, 1, 2], "never fall"),
        ([0, 1], 2, [], "offsets run"),
        ([0, 12], 2, [0, 2], "entry 1: cell 12 is not on a grid 3 x 4"),
        ([-1, 2], 2, [0, 2], "entry 0: cell -1"),
        ([2**32, 2], 2, [0, 2], "entry 0: cell 4294967296"),
        ([[0, 1]], 2, [0, 2], "are flat"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    indices: list[int], n_values: int, offsets: list[int], message: str
) -> None:
    with pytest.raises(TransportError, match=message):
        SparseMaps(np.asarray(indices), np.ones(n_values), np.asarray(offsets), (3, 4))


def test_other_tensors_and_shapes_are_refused() -> None:
    with pytest.raises(TransportError, match="a COO tensor"):
        SparseMaps.from_torch(torch.ones(2, 3, 4))
    with pytest.raises(TransportError, match="a COO tensor"):
        SparseMaps.from_torch(torch.ones(2, 12).to_sparse())
    with pytest.raises(TransportError, match="do not fit a grid 3 x 5"):
        SparseMaps.from_torch(torch.ones(2, 12).to_sparse(), (3, 5))
    with pytest.raises(TransportError, match=r"dense maps are \[N, H, W\]"):
        SparseMaps.from_dense(np.ones((3, 4)))
    three = SparseMaps.from_dense(np.ones((3, 2, 6)))
    for other in (np.ones((3, 6, 2)), np.ones((2, 2, 6)), np.ones((2, 6))):
        with pytest.raises(TransportError, match=r"two maps \[H, W\] or two batches"):
            emd(three, other)
