import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitscope.distributed import ALONE
from vitscope.sae.selection import Cut, find_cut


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
