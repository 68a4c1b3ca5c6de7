"""The largest of a batch, and the cut that ends them, against full sorts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sae.dense_sae import dense_top_k
from tests.sae.kept_batches import fill, kept_batch
from torch import Tensor

from vitscope.distributed import ALONE
from vitscope.sae.selection import GUESS_SHARE, Cut, PreActivationBuffer, find_cut

KINDS = ["normal", "few values", "mostly negative", "one row", "one feature", "all equal", "tiny"]


def check(kept: PreActivationBuffer, pre: Tensor, n_keep: int) -> None:
    code = kept.largest(n_keep)
    expected = dense_top_k(pre, n_keep)
    flat = code.rows * pre.shape[1] + code.features
    assert torch.equal(flat, expected.reshape(-1).nonzero().squeeze(1))  # ascending, by row
    assert torch.equal(code.values, pre[expected])


def batch(kind: str, shape: tuple[int, int], g: torch.Generator) -> Tensor:
    pre = torch.randn(shape, generator=g)
    if kind == "few values":  # ties everywhere, across rows, blocks and features
        return (2 * pre).round()
    if kind == "mostly negative":  # fewer positive than wanted
        return pre - 2.5
    if kind == "one row":
        return torch.cat([pre[:1], torch.full_like(pre[1:], -1)])
    if kind == "one feature":  # the dictionary has collapsed
        return torch.cat([pre[:, :1] + 9, torch.full_like(pre[:, 1:], -1)], dim=1)
    if kind == "all equal":
        return torch.full(shape, float(pre[0, 0]))
    return pre * 1e-42 if kind == "tiny" else pre


@settings(deadline=None, max_examples=300)
@given(
    shape=st.sampled_from([(1, 1), (3, 5), (7, 64), (70, 40), (8, 129), (32, 30), (5, 1000)]),
    share=st.floats(0, 1.2),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
    scale=st.sampled_from([1e-3, 0.9, 1.0, 1.1, 1e3]),
    seed=st.integers(0, 2**31),
)
def test_equals_a_full_sort_whatever_the_batch_before_suggests(
    shape: tuple[int, int], share: float, kinds: list[str], scale: float, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    kept = PreActivationBuffer(*shape, like=torch.empty(0))
    for number, kind in enumerate(kinds):  # each batch's cut is the guess for the next
        pre = batch(kind, shape, g) * scale**number
        fill(kept, pre)
        n = pre.numel()
        check(kept, pre, (int(share * n), n // 50)[number % 2])


def test_bias_is_part_of_what_is_compared() -> None:
    g = torch.Generator().manual_seed(0)
    product, b_enc = torch.randn(70, 50, generator=g), torch.randn(50, generator=g)
    kept = kept_batch(product, b_enc)
    b_enc_then = b_enc.clone()
    b_enc += 7  # training moves it in place; the buffer holds the batch as it was
    check(kept, product + b_enc_then, 200)
    chosen = torch.tensor([3, 3, 49, 0])
    assert torch.equal(kept.of_features(chosen), (product + b_enc_then).T[chosen])


@pytest.mark.parametrize(
    ("guess", "n_scans"),
    [(0.0, 1), (1e-9, 1), (1.0, 1), (1.9, 1), (2.5, 2), (1e9, 2)],
    ids=["none", "too loose", "loose", "near", "too high", "absurd"],
)
def test_no_guess_changes_the_result(guess: float, n_scans: int) -> None:
    pre = torch.randn(32, 4000, generator=torch.Generator().manual_seed(1))
    kept = kept_batch(pre)
    kept.guess = guess / GUESS_SHARE
    check(kept, pre, 1500)
    assert kept.guess == pre.view(-1).topk(1500).values[-1]
    assert kept.n_scans == n_scans


def test_a_steady_stream_is_scanned_once() -> None:
    g = torch.Generator().manual_seed(2)
    kept = PreActivationBuffer(256, 200, like=torch.empty(0))
    scans: list[int] = []
    for _ in range(30):
        fill(kept, torch.randn(256, 200, generator=g))
        kept.largest(1000)
        scans.append(kept.n_scans)
    assert sum(scans) == 30


@pytest.mark.parametrize("value", [0.0, -1.0, 2.0])
@pytest.mark.parametrize("n_keep", [0, 1, 7, 40, 5000])
def test_all_equal(value: float, n_keep: int) -> None:
    pre = torch.full((8, 512), value)
    check(kept_batch(pre), pre, n_keep)
    assert kept_batch(pre).largest(n_keep).n == (min(n_keep, pre.numel()) if value > 0 else 0)


def test_fewer_positive_than_wanted_keeps_exactly_the_positive() -> None:
    pre = -torch.ones(16, 640)
    pre[3, 7], pre[15, 639], pre[0, 0] = 0.5, 1e-30, 2.0
    code = kept_batch(pre).largest(100)
    assert code.rows.tolist() == [0, 3, 15]
    assert code.features.tolist() == [0, 7, 639]


def test_lower_token_then_lower_feature_wins_among_equals() -> None:
    pre = torch.zeros(4, 1024)
    pre[:, ::100] = 1.0
    pre[2, 5] = 3.0
    code = kept_batch(pre).largest(4)
    assert list(zip(code.rows.tolist(), code.features.tolist(), strict=True)) == [
        (0, 0),
        (0, 100),
        (0, 200),
        (2, 5),
    ]


@pytest.mark.parametrize("n_keep", [2, 4000])
@pytest.mark.parametrize("where", ["first", "last", "bias"])
def test_nan_is_refused_not_dropped(n_keep: int, where: str) -> None:
    weights, b_enc = torch.ones(1031, 8), torch.zeros(1031)
    if where == "bias":
        b_enc[500] = float("nan")
    else:
        weights[0 if where == "first" else -1, 0] = float("nan")
    kept = PreActivationBuffer(8, 1031, like=weights)
    kept.encode(torch.eye(8), weights, b_enc)
    with pytest.raises(FloatingPointError, match="NaN"):
        kept.largest(n_keep)


@settings(deadline=None, max_examples=200)
@given(
    n=st.integers(1, 400),
    share=st.floats(0, 1.1),
    kind=st.sampled_from(["normal", "few values", "one value", "tiny", "all scales"]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    seed=st.integers(0, 2**31),
)
def test_equals_a_sort(n: int, share: float, kind: str, dtype: torch.dtype, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    values = torch.rand(n, generator=g, dtype=torch.float64) + 1e-9
    if kind == "few values":
        values = (values * 4).ceil()
    elif kind == "one value":
        values.fill_(0.3)
    elif kind == "tiny":
        values *= 1e-42  # subnormal in float32
    elif kind == "all scales":
        values = 10 ** (60 * values - 30)
    positive = values.to(dtype)
    positive = positive[positive > 0]
    wanted = max(1, int(share * n))
    found = find_cut(positive, wanted, ALONE)
    if wanted > positive.numel():
        assert found is None
        return
    cut = positive.sort(descending=True).values[wanted - 1].item()
    n_above, n_at = int((positive > cut).sum()), int((positive == cut).sum())
    assert found == Cut(cut, wanted - n_above, n_at)


def test_infinity_is_the_largest() -> None:
    values = torch.tensor([1.0, float("inf"), 2.0, 3e38])
    assert find_cut(values, 1, ALONE) == Cut(float("inf"), 1, 1)
    assert find_cut(values, 2, ALONE) == Cut(values[3].item(), 1, 1)


@pytest.mark.parametrize("n", [1, 5])
def test_no_numbers(n: int) -> None:
    assert find_cut(torch.empty(0), n, ALONE) is None
