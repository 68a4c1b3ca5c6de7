"""Attention on demand: rows and streamed sums against the whole softmax, and what is held."""

import pytest
import torch
from torch import Tensor

from vitscope.backbones import attention as module
from vitscope.backbones.attention import QUERY_CHUNK, QueryKeyAttention

N_PREFIX, N_PATCHES = 2, 150
N_TOKENS = N_PREFIX + N_PATCHES


@pytest.fixture
def attention() -> QueryKeyAttention:
    g = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 3, 4, N_TOKENS, 8, generator=g)
    return QueryKeyAttention(query, key, N_PREFIX)


def whole(found: QueryKeyAttention) -> Tensor:
    """All rows at once, in float64, then rounded."""
    scores = found.query.double() @ found.key.double().transpose(-1, -2)
    return (scores.exp() / scores.exp().sum(-1, keepdim=True)).float()


def test_rows_are_rows_of_the_whole_softmax(attention: QueryKeyAttention) -> None:
    for queries in ([0], [1, 0], [N_TOKENS - 1, 5, 5]):
        rows = attention.rows(torch.tensor(queries))
        assert rows.dtype == torch.float32
        torch.testing.assert_close(rows, whole(attention)[:, :, queries])


def test_patch_rows_leave_the_prefix_queries_out_and_keep_the_prefix_keys(
    attention: QueryKeyAttention,
) -> None:
    rows = attention.patch_rows()
    assert rows.shape == (3, 4, N_PATCHES, N_TOKENS)
    torch.testing.assert_close(rows, whole(attention)[:, :, N_PREFIX:])


def test_received_is_summed_over_patch_queries(attention: QueryKeyAttention) -> None:
    received = attention.received()
    expected = whole(attention)[:, :, N_PREFIX:].sum(2)
    torch.testing.assert_close(received, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(received.sum(-1), torch.full((3, 4), float(N_PATCHES)))


def test_no_more_rows_than_a_chunk_are_held_while_summing(
    attention: QueryKeyAttention, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    honest = module.QueryKeyAttention.rows

    def rows(self: QueryKeyAttention, queries: Tensor) -> Tensor:
        found = honest(self, queries)
        held.append(found.shape[2])
        return found

    monkeypatch.setattr(module.QueryKeyAttention, "rows", rows)
    attention.received()
    assert max(held) == QUERY_CHUNK < N_PATCHES
    assert sum(held) == N_PATCHES
