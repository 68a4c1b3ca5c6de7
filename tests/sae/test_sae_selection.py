import pytest
import torch
from dense_sae import dense_top_k
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vitscope.sae.selection import batch_top_k, largest_values


def check(pre: Tensor, n_keep: int) -> None:
    code = batch_top_k(pre, n_keep)
    expected = dense_top_k(pre, n_keep)
    assert torch.equal(code.dense(), pre * expected)
    flat = code.rows * pre.shape[1] + code.features
    assert torch.equal(flat, expected.reshape(-1).nonzero().squeeze(1))  # ascending, by row


@settings(deadline=None, max_examples=200)
@given(
    shape=st.sampled_from([(1, 1), (3, 5), (7, 64), (8, 129), (16, 300), (5, 1000)]),
    share=st.floats(0, 1.2),
    kind=st.sampled_from(["normal", "few values", "mostly negative", "one row"]),
    seed=st.integers(0, 2**31),
)
def test_equals_a_full_sort(shape: tuple[int, int], share: float, kind: str, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    pre = torch.randn(shape, generator=g)
    if kind == "few values":  # ties everywhere, across block borders and in the tail
        pre = (2 * pre).round()
    elif kind == "mostly negative":
        pre = pre - 2.5
    elif kind == "one row":
        pre[1:] = -1
    for keep in {int(share * pre.numel()), min(pre.numel(), 1), pre.numel() // 300}:
        check(pre, keep)


@pytest.mark.parametrize("value", [0.0, -1.0, 2.0])
@pytest.mark.parametrize("n_keep", [0, 1, 7, 40, 5000])
def test_all_equal(value: float, n_keep: int) -> None:
    pre = torch.full((8, 512), value)
    check(pre, n_keep)
    assert batch_top_k(pre, n_keep).n == (min(n_keep, pre.numel()) if value > 0 else 0)


def test_fewer_positive_than_wanted_keeps_exactly_the_positive() -> None:
    pre = -torch.ones(16, 640)
    pre[3, 7], pre[15, 639], pre[0, 0] = 0.5, 1e-30, 2.0
    code = batch_top_k(pre, 100)
    assert code.rows.tolist() == [0, 3, 15]
    assert code.features.tolist() == [0, 7, 639]
    check(pre, 100)


def test_lower_flat_index_wins_among_equals() -> None:
    pre = torch.zeros(4, 1024)
    pre[:, ::100] = 1.0
    pre[2, 5] = 3.0
    code = batch_top_k(pre, 4)
    assert list(zip(code.rows.tolist(), code.features.tolist(), strict=True)) == [
        (0, 0),
        (0, 100),
        (0, 200),
        (2, 5),
    ]


def test_all_large_entries_in_one_block() -> None:
    pre = torch.rand(4, 4096, generator=torch.Generator().manual_seed(0))
    pre[1, 64:128] += 10  # block maxima alone would find one of these
    check(pre, 50)


@pytest.mark.parametrize("n_keep", [2, 4000])
@pytest.mark.parametrize("place", [0, 5000, -1])
def test_nan_is_refused_not_dropped(n_keep: int, place: int) -> None:
    pre = torch.ones(8, 1031)
    pre.view(-1)[place] = float("nan")
    with pytest.raises(FloatingPointError, match="NaN"):
        batch_top_k(pre, n_keep)


def test_largest_values() -> None:
    flat = torch.randn(5000, generator=torch.Generator().manual_seed(1))
    for n in (1, 30, 2000, 6000):
        expected = flat[flat > 0].sort(descending=True).values[:n]
        assert torch.equal(largest_values(flat, n).sort(descending=True).values, expected)
