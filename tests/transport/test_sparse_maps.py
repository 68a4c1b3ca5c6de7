"""Maps as cells and values: the same distances as from whole maps, whoever made them."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array, csc_array, csr_array
from tests.transport.map_pairs import Map, features

from vitscope.errors import TransportError
from vitscope.transport.emd import emd

SHAPE = (6, 9)


@pytest.fixture(scope="module")
def maps() -> tuple[Map, Map]:
    random = np.random.default_rng(0)
    pairs = [features(random, SHAPE) for _ in range(300)]
    first, second = (np.stack(side) for side in zip(*pairs, strict=True))
    first[17], second[40] = 0, 0
    return first, second


def sparse(maps: Map) -> csr_array:
    return csr_array(maps.reshape(len(maps), -1))


def of_parts(indices: Any, values: Any, offsets: Any, n_cells: int = 12) -> csr_array:
    """Put the parts together whatever they are: SciPy itself would refuse some."""
    made = csr_array((max(len(offsets) - 1, 0), n_cells))
    made.indices, made.data, made.indptr = map(np.asarray, (indices, values, offsets))
    return made


def test_sparse_maps_have_the_distances_of_dense_ones(maps: tuple[Map, Map]) -> None:
    expected = np.asarray(emd(*maps))
    first, second = (sparse(side) for side in maps)
    for workers in (1, 2):
        found = emd(first, second, grid=SHAPE, workers=workers)
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(emd(first, maps[1], grid=SHAPE), expected)
    np.testing.assert_array_equal(emd(torch.from_numpy(maps[0]), second, grid=SHAPE), expected)
    assert np.flatnonzero(np.isnan(expected)).tolist() == [17, 40]
    for kind in (coo_array, csc_array):
        np.testing.assert_array_equal(emd(kind(first), second, grid=SHAPE), expected)
    first.indices, first.indptr = first.indices.astype(np.int64), first.indptr.astype(np.int64)
    np.testing.assert_array_equal(emd(first, second, grid=SHAPE), expected)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")  # torch, to whoever makes one
def test_sparse_tensors_are_taken_in_each_layout(maps: tuple[Map, Map]) -> None:
    expected = emd(*maps)
    whole = [torch.from_numpy(side) for side in maps]
    np.testing.assert_array_equal(emd(*(w.to_sparse() for w in whole)), expected)
    flat = [w.reshape(len(w), -1) for w in whole]
    for layout in (torch.sparse_coo, torch.sparse_csr):
        both = [f.to_sparse(layout=layout) for f in flat]
        np.testing.assert_array_equal(emd(*both, grid=SHAPE), expected)
    half = [w.bfloat16().to_sparse().requires_grad_() for w in whole]
    rounded = emd(*(w.bfloat16() for w in whole))
    np.testing.assert_array_equal(emd(*half), rounded)


def test_order_repeats_zeros_and_scale_do_not_matter() -> None:
    whole = np.zeros((1, 3, 4))
    whole[0, 2, 1], whole[0, 0, 3], whole[0, 1, 1] = 3, 2, 1
    other = np.random.default_rng(1).random((1, 3, 4))
    cells, values = [3, 9, 5, 9, 0], [2e-300, 1e-300, 1e-300, 2e-300, 0.0]
    given = csr_array((values, cells, [0, 5]), shape=(1, 12))
    np.testing.assert_allclose(given.toarray().reshape(1, 3, 4) * 1e300, whole)
    found = emd(given, other, grid=(3, 4))
    assert found == pytest.approx(np.asarray(emd(whole, other)), abs=1e-12)
    np.testing.assert_array_equal(emd(given, given, grid=(3, 4)), 0)
    assert given.indices.tolist() == cells  # left as it was


def test_no_maps_and_empty_maps() -> None:
    none = csr_array((0, 12))
    assert np.asarray(emd(none, none, grid=(3, 4))).shape == (0,)
    assert np.isnan(emd(csr_array((2, 12)), np.ones((2, 3, 4)), grid=(3, 4))).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_impossible_masses_are_refused_by_pair_and_side(bad: float) -> None:
    good = sparse(np.eye(4).reshape(1, 4, 4).repeat(600, 0))
    wrong = good.copy()
    wrong.data[4 * 555 + 2] = bad
    with pytest.raises(TransportError, match="pair 555: its first map has NaN"):
        emd(wrong, good, grid=(4, 4))
    with pytest.raises(TransportError, match="pair 555: its second map has NaN"):
        emd(good, wrong, grid=(4, 4), workers=2)


@pytest.mark.parametrize(
    ("indices", "n_values", "offsets"),
    [
        ([0, 1], 3, [0, 2]),
        ([0, 1], 2, [0, 3]),
        ([0, 1], 2, [1, 2]),
        ([0, 1], 2, [0, 2, 1, 2]),
        ([0, 12], 2, [0, 2]),
        ([-1, 2], 2, [0, 2]),
        ([2**32, 2], 2, [0, 2]),
        ([[0, 1]], 2, [0, 2]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    indices: list[int], n_values: int, offsets: list[int]
) -> None:
    wrong = of_parts(indices, np.ones(n_values), offsets)
    with pytest.raises(TransportError, match="do not fit the grid"):
        emd(wrong, np.ones((len(offsets) - 1, 3, 4)), grid=(3, 4))


def test_other_tensors_and_shapes_are_refused() -> None:
    flat, dense = np.ones((2, 12)), np.ones((2, 3, 4))
    with pytest.raises(TransportError, match="a COO tensor"):
        emd(torch.ones(2, 12).to_sparse_csc(), dense, grid=(3, 4))
    for grid in (None, (3, 5)):
        for batch in (torch.ones(2, 12).to_sparse(), csr_array(flat)):
            with pytest.raises(TransportError, match=r"sparse maps are \[N, H·W\], with grid"):
                emd(batch, dense, grid=grid)
    with pytest.raises(TransportError, match="real numbers, got complex"):
        emd(csr_array(flat.astype(complex)), dense, grid=(3, 4))
    three = csr_array(np.ones((3, 12)))
    for other in (np.ones((3, 6, 2)), np.ones((2, 2, 6)), np.ones((2, 6))):
        with pytest.raises(TransportError, match=r"two maps \[H, W\] or two batches"):
            emd(three, other, grid=(2, 6))
