from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vitscope.sae.quality import FeatureActivity

FEATURES = 7
W_DEC = torch.randn(FEATURES, 4, generator=torch.Generator().manual_seed(0)).double()


def codes_and_mask(n: int, seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    codes = torch.relu(torch.randn(n, FEATURES, generator=g) - 0.3)
    codes[:, 3] = 0  # a feature that never fires
    return codes, torch.rand(n, generator=g) < 0.4


def activity_of(codes: Tensor, mask: Tensor) -> FeatureActivity:
    activity = FeatureActivity(FEATURES)
    activity.update(codes, mask)
    return activity


def figures(activity: FeatureActivity) -> dict[str, Tensor]:
    return {
        "density": activity.density(),
        "density_outlier": activity.density_on("outlier"),
        "density_other": activity.density_on("other"),
        "mean_active": activity.mean_active(),
        "mean_outlier": activity.mean_on("outlier"),
        "mean_other": activity.mean_on("other"),
        "maximum": activity.maximum,
        "energy": activity.energy(W_DEC),
        "contribution_rate": activity.contribution_rate(),
    }


@settings(deadline=None, max_examples=60)
@given(n=st.integers(0, 40), seed=st.integers(0, 2**31))
def test_equals_dense_means(n: int, seed: int) -> None:
    codes, mask = codes_and_mask(n, seed)
    wide = codes.double()
    expected = {
        "density": (wide > 0).double().mean(0),
        "density_outlier": (wide[mask] > 0).double().mean(0),
        "density_other": (wide[~mask] > 0).double().mean(0),
        "mean_active": torch.stack([column[column > 0].mean() for column in wide.T]),
        "mean_outlier": wide[mask].mean(0),
        "mean_other": wide[~mask].mean(0),
        "maximum": wide.amax(0) if n else torch.zeros(FEATURES, dtype=torch.float64),
        "energy": (wide[:, :, None] * W_DEC).square().sum((0, 2)) / max(n, 1),
        "contribution_rate": (wide != 0).double().sum(0) / max(n, 1),
    }
    for name, value in figures(activity_of(codes, mask)).items():
        torch.testing.assert_close(
            value, expected[name], rtol=1e-12, atol=0, equal_nan=True, msg=name
        )


@settings(deadline=None, max_examples=40)
@given(cuts=st.lists(st.integers(0, 30), max_size=5), seed=st.integers(0, 2**31))
def test_any_split_gives_the_same(cuts: list[int], seed: int) -> None:
    codes, mask = codes_and_mask(30, seed)
    edges = sorted([0, 30, *cuts])
    merged = FeatureActivity(FEATURES)
    for a, b in reversed(list(pairwise(edges))):
        piece = activity_of(codes[a:b], mask[a:b])
        merged.merge(FeatureActivity.from_tensors(piece.to_tensors()))
    whole = activity_of(codes, mask)
    assert (
        merged.n_tokens
        == whole.n_tokens
        == {
            "other": int((~mask).sum()),
            "outlier": int(mask.sum()),
        }
    )
    for name, value in figures(merged).items():
        torch.testing.assert_close(
            value, figures(whole)[name], rtol=1e-12, atol=0, equal_nan=True, msg=name
        )


def test_restored_sums_are_apart_from_what_they_were_restored_from() -> None:
    codes, mask = codes_and_mask(20, 0)
    first = activity_of(codes, mask)
    saved = first.to_tensors()
    restored = FeatureActivity.from_tensors(saved)
    restored.update(codes * 2, mask)
    first.update(codes, mask)
    assert torch.equal(saved["activity.outlier.count"], activity_of(codes, mask).count["outlier"])
    assert torch.equal(restored.maximum, 2 * activity_of(codes, mask).maximum)


def test_a_negative_code_fires_not_and_contributes() -> None:
    codes, mask = torch.tensor([[-2.0, 3.0], [0.0, 1.0]]), torch.tensor([False, False])
    activity = FeatureActivity(2)
    activity.update(codes, mask)
    assert activity.density().tolist() == [0, 1]
    assert activity.contribution_rate().tolist() == [0.5, 1]
    assert activity.energy(torch.tensor([[0.0, 2.0], [1.0, 0.0]])).tolist() == [8, 5]


def test_the_activation_of_a_group_is_the_mean_of_its_sum() -> None:
    codes, mask = codes_and_mask(40, 1)
    activity = activity_of(codes, mask)
    for kind, tokens in (("outlier", codes[mask]), ("other", codes[~mask])):
        of_group = activity.mean_on(kind)[[0, 2, 5]].sum()
        torch.testing.assert_close(of_group, tokens[:, [0, 2, 5]].double().sum(1).mean())


def test_no_tokens_is_nan() -> None:
    empty = figures(FeatureActivity(FEATURES))
    for name in ("maximum", "energy", "contribution_rate"):
        assert not empty.pop(name).any()
    assert all(bool(value.isnan().all()) for value in empty.values())
