"""Removal: exact identities, independent dense arithmetic, and the later blocks of real ViTs."""

from dataclasses import replace
from itertools import combinations
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.removal.removal_vit import SIDE, VARIANTS, small_backbone
from tests.removal.removal_vit import WIDTH as VIT_WIDTH

from vitscope.backbones.backbone import BlockTokens
from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.errors import BackboneError, SaeError
from vitscope.removal.backbone import RemovedBackbone, removed
from vitscope.removal.remove import remove, remove_groups
from vitscope.sae.model import SparseAutoencoder
from vitscope.scope import exemplars

WIDTH, M = 12, 40


def random_sae(*, width: int = WIDTH, seed: int = 0, dtype=torch.float64) -> SparseAutoencoder:
    """An SAE with nothing special: biases non-zero, encoder not the transpose."""
    g = torch.Generator().manual_seed(seed)
    w_dec = torch.randn(M, width, generator=g, dtype=torch.float64)
    w_dec = torch.nn.functional.normalize(w_dec, dim=1)
    w_enc = w_dec.T + 0.1 * torch.randn(width, M, generator=g, dtype=torch.float64)
    b_enc = 0.2 * torch.randn(M, generator=g, dtype=torch.float64) - 0.2
    b_dec = torch.randn(width, generator=g, dtype=torch.float64)
    tensors = (w_enc.to(dtype), b_enc.to(dtype), w_dec.to(dtype), b_dec.to(dtype))
    return SparseAutoencoder(*tensors, threshold=0.3, k=4)


def random_tokens(*shape: int, seed: int = 1, dtype=torch.float64) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(*shape, generator=g, dtype=torch.float64)).to(dtype)


def dense_contribution(sae: SparseAutoencoder, x: np.ndarray, group: list[int]) -> np.ndarray:
    """Σ a_j d_j one feature at a time, in NumPy."""
    w_enc, w_dec = sae.w_enc.numpy(), sae.w_dec.numpy()
    total = np.zeros_like(x)
    for j in group:
        pre = (x - sae.b_dec.numpy()) @ w_enc[:, j] + sae.b_enc.numpy()[j]
        total += np.where(pre > sae.threshold, pre, 0.0)[:, None] * w_dec[j]
    return total


groups = st.lists(st.integers(0, M - 1), max_size=M, unique=True)


@settings(max_examples=30, deadline=None)
@given(groups, st.integers(0, 1000))
def test_removal_is_the_dense_formula(group: list[int], seed: int) -> None:
    sae, x = random_sae(), random_tokens(9, WIDTH, seed=seed)
    part = dense_contribution(sae, x.numpy(), group)
    rest = dense_contribution(sae, x.numpy(), [j for j in range(M) if j not in group])
    kept = remove(sae, x, group)
    np.testing.assert_allclose(kept.numpy(), x.numpy() - part, atol=1e-12)
    rebuilt = remove(sae, x, group, keep_error=False)
    np.testing.assert_allclose(rebuilt.numpy(), rest + sae.b_dec.numpy(), atol=1e-12)
    # what the two readings differ by is the reconstruction error, whatever the group
    error = x - sae.decode(sae.encode(x))
    np.testing.assert_allclose((kept - rebuilt).numpy(), error.numpy(), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_an_empty_group_changes_no_bit(dtype: torch.dtype) -> None:
    sae, x = random_sae(dtype=torch.float32), random_tokens(3, 5, WIDTH, dtype=dtype)
    x[0, 0, :2] = torch.tensor([0.0, -0.0], dtype=dtype)
    same = remove(sae, x, [])
    assert same.dtype == dtype and same.shape == x.shape and same is not x
    width = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    assert torch.equal(same.view(width), x.view(width))  # signed zeros too


def test_without_any_feature_the_reconstruction_is_the_bias_exactly() -> None:
    sae, x = random_sae(dtype=torch.float32), random_tokens(2, 7, WIDTH, dtype=torch.float32)
    bare = remove(sae, x, list(range(M)), keep_error=False)
    assert torch.equal(bare, sae.b_dec.expand_as(x))
    again = remove(sae, bare, list(range(M)), keep_error=False)
    assert torch.equal(again, bare)


def test_contributions_of_a_partition_sum_to_the_reconstruction() -> None:
    sae, x = random_sae(), random_tokens(50, WIDTH)
    parts = {"low": range(0, 25), "high": range(25, 37), "unscored": range(37, M)}
    without = remove_groups(sae, x, {name: list(part) for name, part in parts.items()})
    total = sum((x - variant for variant in without.values()), sae.b_dec)
    torch.testing.assert_close(total, sae.decode(sae.encode(x)), rtol=0, atol=1e-12)
    for one, other in combinations(parts, 2):
        joint = remove(sae, x, [*parts[one], *parts[other]])
        torch.testing.assert_close(joint, without[one] + without[other] - x, rtol=0, atol=1e-12)


def test_removing_twice_is_removing_once_for_orthonormal_features() -> None:
    q, _ = torch.linalg.qr(random_tokens(WIDTH, WIDTH, seed=3))
    zeros = torch.zeros(WIDTH, dtype=torch.float64)
    sae = SparseAutoencoder(q, zeros, q.T.contiguous(), zeros + 0.5, threshold=0.2, k=3)
    x, group = random_tokens(20, WIDTH), [1, 4, 7]
    once = remove(sae, x, group)
    assert not torch.allclose(once, x)
    torch.testing.assert_close(remove(sae, once, group), once, rtol=0, atol=1e-12)


def test_variants_of_one_encoding_are_those_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    sae, x = random_sae(), random_tokens(6, 7, WIDTH)
    several = {"none": [], "some": [0, 3], "mask": torch.arange(M) % 2 == 0}
    calls: list[int] = []
    encode = SparseAutoencoder.encode
    monkeypatch.setattr(
        SparseAutoencoder,
        "encode",
        lambda self, rows: calls.append(len(rows)) or encode(self, rows),
    )
    found = remove_groups(sae, x, several)
    assert calls == [42]
    for name, group in several.items():
        assert torch.equal(found[name], remove(sae, x, group))
    # in pieces of five tokens
    monkeypatch.setattr(exemplars, "MOST_DENSE_CODES", 5 * M)
    calls.clear()
    pieces = remove_groups(sae, x, several)
    assert calls == [5] * 8 + [2]
    for name in several:
        torch.testing.assert_close(pieces[name], found[name], rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ([0, M], f"feature {M}; the SAE's features are 0 to {M - 1}"),
        ([-1], "feature -1"),
        (np.zeros(M - 1, dtype=bool), "mask of shape"),
        ([0.5], "give feature indices"),
    ],
)
def test_groups_of_another_dictionary_are_refused(group, message: str) -> None:
    with pytest.raises(SaeError, match=message):
        remove(random_sae(), random_tokens(2, WIDTH), group)


def test_tokens_of_another_width_are_refused() -> None:
    with pytest.raises(SaeError, match=f"the SAE's width, {WIDTH}"):
        remove(random_sae(), random_tokens(2, WIDTH + 1), [0])


def images(n: int, side: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (n, 3, side, side), generator=g, dtype=torch.uint8)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_forward_pass_without_a_group(variant: str) -> None:
    backbone = small_backbone(2, variant)
    sae = random_sae(width=VIT_WIDTH, dtype=torch.float32)
    seen, group = images(2, SIDE), list(range(0, M, 2))
    plain = backbone.tokens(seen)
    edited = BlockTokens(remove(sae, plain.patch, group), plain.prefix)
    assert not torch.allclose(edited.patch, plain.patch)
    expected = backbone.resume(edited)
    wrapped = RemovedBackbone(backbone, sae, group)
    assert torch.equal(wrapped.tokens(seen).prefix, plain.prefix)
    assert torch.equal(wrapped.resume(wrapped.tokens(seen)).patch, expected.patch)
    with removed(backbone, sae, group):
        inside = backbone.tokens(seen)
        whole = backbone.resume(inside)
    assert torch.equal(inside.patch, edited.patch) and torch.equal(inside.prefix, plain.prefix)
    assert torch.equal(whole.patch, expected.patch)
    assert torch.equal(whole.pooled, expected.pooled)
    assert not torch.allclose(whole.pooled, backbone.resume(plain).pooled)
    assert torch.equal(backbone.tokens(seen).patch, plain.patch)  # the hook is gone


def test_the_hook_edits_the_models_own_forward_and_goes_with_an_error() -> None:
    backbone = small_backbone(3)
    sae = random_sae(width=VIT_WIDTH, dtype=torch.float32)
    pixels = torch.randn(1, 3, SIDE, SIDE)
    with torch.inference_mode():
        plain = backbone.model(pixels)
        with removed(backbone, sae, []):
            assert torch.equal(backbone.model(pixels), plain)
        with pytest.raises(ZeroDivisionError), removed(backbone, sae, list(range(M))):
            assert not torch.allclose(backbone.model(pixels), plain)
            raise ZeroDivisionError
        assert torch.equal(backbone.model(pixels), plain)


def test_any_backbone_can_be_wrapped_and_one_without_modules_says_so() -> None:
    backbone = PlantedBackbone()
    sae = random_sae(width=backbone.spec.width, dtype=torch.float32)
    side = backbone.site.resolution
    wrapped = RemovedBackbone(backbone, sae, [1, 2])
    tokens = backbone.tokens(images(1, side))
    assert torch.equal(wrapped.tokens(images(1, side)).patch, remove(sae, tokens.patch, [1, 2]))
    assert wrapped.site == backbone.site and wrapped.preprocessing == backbone.preprocessing
    with pytest.raises(BackboneError, match="RemovedBackbone"), removed(backbone, sae, [1]):
        pass
    elsewhere = replace(sae, site=replace(backbone.site, layer=2))
    with pytest.raises(SaeError, match="layer 2"):
        RemovedBackbone(backbone, elsewhere, [1])


class Standardised:
    """Normalisation of every token by its own mean and spread, as some imported SAEs do."""

    def statistics(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.mean(1, keepdim=True), x.std(1, keepdim=True, correction=0)

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        shift, scale = self.statistics(x)
        return (x - shift) / scale


def test_an_sae_that_normalises_tokens_is_removed_in_raw_units() -> None:
    sae: Any = replace(random_sae(), token_norm=cast(Any, Standardised()))
    x = random_tokens(30, WIDTH) * torch.linspace(1, 50, 30)[:, None]
    low, high = list(range(20)), list(range(20, M))
    without = remove_groups(sae, x, {"low": low, "high": high, "all": [*low, *high]})
    reconstruction = sae.decode(sae.encode(x), like=x)
    error = x - reconstruction
    bare = remove(sae, x, range(M), keep_error=False)
    shift, scale = Standardised().statistics(x)
    torch.testing.assert_close(bare, sae.b_dec * scale + shift)
    torch.testing.assert_close(without["all"], bare + error)
    sums = (x - without["low"]) + (x - without["high"]) + bare
    torch.testing.assert_close(sums, reconstruction)
    assert float(((x - without["low"]).norm(dim=1)[-1]) / (x - without["low"]).norm(dim=1)[0]) > 5
