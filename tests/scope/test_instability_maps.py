"""Reading attention row by row: what is kept against the whole matrix, and how much is held."""

import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scope.written_attention import PREFIX, Written, written
from torch import Tensor

from vitscope.backbones.attention import QUERY_CHUNK, BlockAttention, QueryKeyAttention
from vitscope.scope import instability_maps
from vitscope.scope.instability_maps import read_maps
from vitscope.scope.views import Overlap

HEADS = 3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 7))
def test_maps_are_pieces_of_the_whole_matrix(seed: int, n_views: int, chunk: int) -> None:
    random, overlap = np.random.default_rng(seed), Overlap(6, 2)
    views = random.random((n_views, HEADS, 36, 36))
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
    query, key = torch.randn(2, 2, HEADS, PREFIX + 25, 8, generator=g)
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
