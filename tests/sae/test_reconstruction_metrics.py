import math
from dataclasses import asdict
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vitscope.sae.quality import GroupMetrics, ReconstructionMetrics, ReconstructionSums

WIDTH, FEATURES = 6, 9


def tokens(n: int, seed: int, mean: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, reconstructions, codes, outlier mask; outliers near one direction, far out."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, WIDTH, generator=g) + mean
    mask = torch.rand(n, generator=g) < 0.3
    x[mask] += 30 * torch.ones(WIDTH)
    x_hat = x + 0.4 * torch.randn(n, WIDTH, generator=g)
    codes = torch.relu(torch.randn(n, FEATURES, generator=g) - 0.5)
    return x, x_hat, codes, mask


def sums_of(*data: Tensor) -> ReconstructionSums:
    sums = ReconstructionSums(WIDTH)
    sums.update(*data)
    return sums


def direct(x: Tensor, x_hat: Tensor, codes: Tensor, mask: Tensor) -> ReconstructionMetrics:
    """The protocol's definitions, token by token in Python floats."""
    rows = [[float(v) for v in row] for row in x]
    hats = [[float(v) for v in row] for row in x_hat]
    mu = [math.fsum(row[i] for row in rows) / len(rows) for i in range(WIDTH)]

    def group(chosen: list[int]) -> GroupMetrics:
        if not chosen:
            return GroupMetrics(0, *[math.nan] * 5)
        own = [math.fsum(rows[t][i] for t in chosen) / len(chosen) for i in range(WIDTH)]

        def squares(centre: list[float]) -> float:
            return math.fsum((rows[t][i] - centre[i]) ** 2 for t in chosen for i in range(WIDTH))

        error = math.fsum((rows[t][i] - hats[t][i]) ** 2 for t in chosen for i in range(WIDTH))
        cosines = [
            math.fsum(a * b for a, b in zip(rows[t], hats[t], strict=True))
            / (math.hypot(*rows[t]) * math.hypot(*hats[t]))
            for t in chosen
        ]
        spread = squares(own)
        return GroupMetrics(
            n=len(chosen),
            fvu=error / squares(mu),
            fvu_own_mean=error / spread if spread else math.nan,
            fvu_uncentred=error / squares([0.0] * WIDTH),
            l0=sum(float(v) > 0 for t in chosen for v in codes[t]) / len(chosen),
            cosine=math.fsum(cosines) / len(chosen),
        )

    everyone = list(range(len(rows)))
    return ReconstructionMetrics(group(everyone), group([t for t in everyone if mask[t]]))


def assert_equal(
    found: ReconstructionMetrics, expected: ReconstructionMetrics, rel: float = 1e-12
) -> None:
    for group in ("all", "outlier"):
        ours, theirs = asdict(getattr(found, group)), asdict(getattr(expected, group))
        assert ours == pytest.approx(theirs, rel=rel, abs=0, nan_ok=True)


@settings(deadline=None, max_examples=60)
@given(n=st.integers(2, 40), seed=st.integers(0, 2**31), mean=st.sampled_from([0.0, 5.0, 300.0]))
def test_equals_the_direct_definition(n: int, seed: int, mean: float) -> None:
    data = tokens(n, seed, mean)
    assert_equal(sums_of(*data).metrics(), direct(*data), rel=1e-11)


@settings(deadline=None, max_examples=60)
@given(
    cuts=st.lists(st.integers(0, 50), max_size=6),
    order=st.randoms(use_true_random=False),
    seed=st.integers(0, 2**31),
)
def test_any_split_and_order_of_merging_gives_the_same(
    cuts: list[int], order: object, seed: int
) -> None:
    data = tokens(50, seed, mean=20.0)
    edges = sorted([0, 50, *cuts])
    pieces = [sums_of(*(t[a:b] for t in data)) for a, b in pairwise(edges)]
    order.shuffle(pieces)  # pyright: ignore[reportAttributeAccessIssue]
    merged = ReconstructionSums(WIDTH)
    for piece in pieces:
        merged.merge(ReconstructionSums.from_tensors(piece.to_tensors()))
    assert_equal(merged.metrics(), sums_of(*data).metrics())


def test_identity_is_zero_and_the_mean_is_one() -> None:
    x, _, codes, mask = tokens(200, 0, mean=3.0)
    perfect = sums_of(x, x, codes, mask).metrics()
    assert perfect.all.fvu == perfect.outlier.fvu == perfect.outlier.fvu_own_mean == 0
    assert perfect.all.cosine == pytest.approx(1, abs=1e-12)

    wide = x.double()
    constant = sums_of(wide, wide.mean(0).expand_as(wide), codes, mask).metrics()
    assert constant.all.fvu == pytest.approx(1, abs=1e-12)
    assert constant.outlier.fvu == pytest.approx(1, abs=1e-12)
    assert constant.outlier.fvu_own_mean > 10  # the group's own mean is far from the global one

    own = wide.clone()
    own[mask] = wide[mask].mean(0)
    assert sums_of(wide, own, codes, mask).metrics().outlier.fvu_own_mean == pytest.approx(1)
    zero = sums_of(wide, torch.zeros_like(wide), codes, mask).metrics()
    assert zero.outlier.fvu_uncentred == pytest.approx(1, abs=1e-12)


def test_a_large_mean_does_not_cost_digits() -> None:
    x, x_hat, codes, mask = tokens(500, 1)
    near, far = x.double(), x.double() + 2.0**20
    expected = sums_of(near, x_hat.double(), codes, mask).metrics()
    found = sums_of(far, x_hat.double() + 2.0**20, codes, mask).metrics()
    # 2^20 costs 20 bits of the tokens themselves; Σ‖x‖² − n‖mean‖² would lose 20 more
    assert found.all.fvu == pytest.approx(expected.all.fvu, rel=1e-9)
    assert found.outlier.fvu_own_mean == pytest.approx(expected.outlier.fvu_own_mean, rel=1e-9)


def test_no_tokens_is_nan_not_zero() -> None:
    x, x_hat, codes, mask = tokens(10, 0)
    nothing = ReconstructionSums(WIDTH).metrics()
    no_outliers = sums_of(x, x_hat, codes, torch.zeros_like(mask)).metrics()
    for group in (nothing.all, nothing.outlier, no_outliers.outlier):
        assert group.n == 0
        values = asdict(group)
        del values["n"]
        assert all(math.isnan(value) for value in values.values())
    assert no_outliers.all.n == 10


def test_tokens_that_do_not_vary_have_no_fvu() -> None:
    x = torch.full((7, WIDTH), 0.1)
    found = sums_of(x, x + 0.01, torch.zeros(7, FEATURES), torch.ones(7, dtype=torch.bool))
    assert math.isnan(found.metrics().all.fvu)
    assert math.isnan(found.metrics().outlier.fvu_own_mean)
    assert found.metrics().all.fvu_uncentred == pytest.approx(0.01, rel=1e-5)


def test_a_zero_reconstruction_has_cosine_zero() -> None:
    x, _, codes, mask = tokens(10, 0)
    assert sums_of(x, torch.zeros_like(x), codes, mask).metrics().all.cosine == 0
