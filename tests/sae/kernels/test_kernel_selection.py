"""The device's selection against the CPU's, entry by entry."""

import pytest
import torch
from torch import Tensor

from vitscope.errors import SaeError
from vitscope.sae.kept_activations import KeptActivations
from vitscope.sae.kernels.entries import EntryOrder
from vitscope.sae.kernels.search_slots import COUNT, KEPT, NAN, PATTERN
from vitscope.sae.kernels.selection import MAX_ENTRIES, DeviceSelection, Kept

CPU = torch.device("cpu")


def buffer(products: Tensor, bias: Tensor) -> KeptActivations:
    """The CPU's buffer of the same pre-activations."""
    n_features, n_tokens = products.shape
    kept = KeptActivations(n_tokens, n_features, like=products)
    kept.encode(torch.eye(n_tokens), products.clamp_max(1e30), bias)  # 0 · ∞ is NaN
    return kept


def drawn(kind: str, n_features: int, n_tokens: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(n_features)
    products = torch.randn(n_features, n_tokens, generator=g)
    bias = 0.2 * torch.randn(n_features, generator=g)
    match kind:
        case "ties":
            products, bias = products.round(), torch.zeros(n_features)
        case "all equal":
            products, bias = torch.ones_like(products), torch.zeros(n_features)
        case "few positive":
            products = products - 2.2
        case "none positive":
            products = -products.abs() - 1
        case "one feature":
            products[1:] -= 9
        case "one token":
            products[:, 1:] -= 9
        case "tiny":
            products = products * 1e-38
            bias = torch.zeros(n_features)
        case "infinite":
            products[2, 1] = products[0, 3] = torch.inf  # the first two that are kept
        case _:
            assert kind == "plain"
    return products, bias


KINDS = (
    *("plain", "ties", "all equal", "few positive", "none positive"),
    *("one feature", "one token", "tiny", "infinite"),
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n_features", "n_tokens", "k"), [(9, 33, 2), (17, 5, 3), (4, 6, 2)])
def test_the_device_keeps_what_the_cpu_keeps(
    kind: str, n_features: int, n_tokens: int, k: int
) -> None:
    products, bias = drawn(kind, n_features, n_tokens)
    expected = buffer(products, bias).largest(n_tokens * k)
    # an exact list of candidates; the whole buffer, since none or too many reach the bound
    for bound, capacity in [(expected.values.min() if expected.n else 0.1, None), (1e9, None),
                            (0.0, n_tokens * k)]:  # fmt: skip
        selection = DeviceSelection(n_tokens, n_features, n_tokens * k, CPU, capacity)
        selection.bound.fill_(bound)
        kept = selection.largest(products, bias)
        entries = EntryOrder(n_tokens, n_features, CPU).of(kept)
        n = int(selection.search[KEPT.value])
        assert n == expected.n
        assert torch.equal(entries.values_by_token[:n].clamp_max(1e30), expected.values)
        assert torch.equal(entries.features_by_token[:n].long(), expected.features)
        tokens = torch.arange(n_tokens).repeat_interleave(entries.token_starts.diff())
        assert torch.equal(tokens, expected.rows)
        cut = selection.search[PATTERN.value : PATTERN.value + 1].view(torch.float32)
        filled = expected.n == n_tokens * k
        assert float(cut) == (float(expected.values.min()) if filled else 0.0)
        assert int(selection.search[NAN.value]) == 0


def shuffled(kept: Kept) -> Kept:
    """As programs that run at once would list them; the interpreter's run in order."""
    order = torch.randperm(kept.values.numel(), generator=torch.Generator().manual_seed(0))
    return Kept(kept.positions[order], kept.values[order])


def test_entries_are_in_both_orders() -> None:
    products, bias = drawn("plain", 9, 33)
    selection = DeviceSelection(33, 9, 66, CPU)
    entries = EntryOrder(33, 9, CPU).of(shuffled(selection.largest(products, bias)))
    dense = buffer(products, bias).largest(66).dense()
    by_feature, by_token = torch.zeros(33, 9), torch.zeros(33, 9)
    features = torch.arange(9).repeat_interleave(entries.starts.diff())
    by_feature[entries.tokens.long(), features] = entries.values
    tokens = torch.arange(33).repeat_interleave(entries.token_starts.diff())
    by_token[tokens, entries.features_by_token.long()] = entries.values_by_token
    assert torch.equal(by_feature, dense)
    assert torch.equal(by_token, dense)


def test_places_without_an_entry_belong_to_nothing() -> None:
    products, bias = drawn("few positive", 9, 33)
    selection = DeviceSelection(33, 9, 66, CPU)
    entries = EntryOrder(33, 9, CPU).of(shuffled(selection.largest(products, bias)))
    n = int(selection.search[KEPT.value])
    assert 0 < n < 66
    assert int(entries.starts[-1]) == int(entries.token_starts[-1]) == n
    assert not entries.values[n:].any()


def test_the_list_never_grows_beyond_its_capacity() -> None:
    products, bias = torch.ones(9, 33), torch.zeros(9)
    selection = DeviceSelection(33, 9, 10, CPU, capacity=10)
    selection.largest(products, bias)
    assert int(selection.search[COUNT.value]) == 9 * 33


def test_nan_is_seen() -> None:
    products, bias = drawn("plain", 9, 33)
    products[8, 32] = torch.nan
    selection = DeviceSelection(33, 9, 66, CPU)
    selection.largest(products, bias)
    assert int(selection.search[NAN.value]) == 1


def test_a_buffer_too_large_to_number_is_refused() -> None:
    with pytest.raises(SaeError, match="lower batch_size"):
        DeviceSelection(2**16, MAX_ENTRIES // 2**16 + 1, 2, torch.device("meta"))
