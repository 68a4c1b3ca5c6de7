from dataclasses import replace

import pytest
import torch
from tests.sae.dense_sae import random_parameters

from vitscope.errors import SaeError
from vitscope.sae.model import (
    AboveThreshold,
    AboveThresholds,
    Activation,
    ConstantNorm,
    GroupMax,
    LayerNorm,
    SparseAutoencoder,
    TopK,
)
from vitscope.sae.threshold import fit_threshold


def make_sae(
    width: int = 12, n_features: int = 40, *, k: int = 4, threshold: float = 0.6
) -> SparseAutoencoder:
    p = random_parameters(width, n_features, seed=5)
    return SparseAutoencoder(p.w_enc.T, p.b_enc, p.w_dec, p.b_dec, threshold, k)


def tokens(n: int, width: int = 12) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(n), dtype=torch.float64)


def test_encode_is_the_thresholded_affine_map() -> None:
    sae, x = make_sae(), tokens(50)
    pre = torch.einsum("nd,dm->nm", x - sae.b_dec, sae.w_enc) + sae.b_enc
    expected = torch.relu(pre) * (pre > 0.6)
    torch.testing.assert_close(sae.encode(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        sae.decode(expected), torch.einsum("nm,md->nd", expected, sae.w_dec) + sae.b_dec
    )


def test_encode_of_some_features_is_those_columns_in_that_order() -> None:
    sae, x = make_sae(), tokens(50)
    wanted = torch.tensor([39, 0, 7, 7])
    torch.testing.assert_close(sae.encode(x, wanted), sae.encode(x)[:, wanted])


def test_an_activation_at_the_threshold_is_zero() -> None:
    eye = torch.eye(2)
    sae = SparseAutoencoder(eye, torch.zeros(2), eye, torch.zeros(2), threshold=1.0, k=1)
    x = torch.tensor([[1.0, 1.0000001], [-5.0, 0.5]])
    assert torch.equal(sae.encode(x), torch.tensor([[0.0, x[0, 1].item()], [0.0, 0.0]]))


def test_shapes_that_do_not_fit_are_named() -> None:
    sae = make_sae()
    with pytest.raises(SaeError, match=r"w_enc has shape \[40, 12\].*must be \[12, 40\]"):
        replace(sae, w_enc=sae.w_enc.T)
    with pytest.raises(SaeError, match="b_dec"):
        replace(sae, b_dec=sae.b_dec[:-1])
    with pytest.raises(SaeError, match="w_dec"):
        replace(sae, w_dec=sae.w_dec[0])
    for theta in (-1.0, float("nan"), float("inf")):
        with pytest.raises(SaeError, match="threshold"):
            replace(sae, threshold=theta)


@pytest.mark.parametrize("n", [1, 7, 2048, 5000])  # below, at and across a chunk of the search
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fitted_threshold_gives_mean_l0_of_exactly_k(n: int, dtype: torch.dtype) -> None:
    sae = make_sae()
    sae = SparseAutoencoder(
        *(t.to(dtype) for t in (sae.w_enc, sae.b_enc, sae.w_dec, sae.b_dec)), threshold=9.0, k=4
    )
    x = tokens(n).to(dtype)
    fitted = replace(sae, threshold=fit_threshold(sae, x))
    assert int((fitted.encode(x) > 0).sum()) == 4 * n
    ordered = sae.pre_activations(x).reshape(-1).sort(descending=True).values
    assert ordered[4 * n] <= fitted.threshold < ordered[4 * n - 1]


def test_threshold_with_too_few_positive_activations_is_zero() -> None:
    sae = make_sae()
    sae = replace(sae, b_enc=sae.b_enc - 8)
    x = tokens(100)
    n_positive = int((sae.pre_activations(x) > 0).sum())
    assert n_positive < 400
    fitted = replace(sae, threshold=fit_threshold(sae, x))
    assert fitted.threshold == 0
    assert int((fitted.encode(x) > 0).sum()) == n_positive


def test_threshold_among_equal_activations_drops_the_tie() -> None:
    eye = torch.eye(3)
    sae = SparseAutoencoder(eye, torch.zeros(3), eye, torch.zeros(3), threshold=0.0, k=1)
    x = torch.tensor([[2.0, 2.0, 2.0], [5.0, 0.5, 0.25]])
    fitted = replace(sae, threshold=fit_threshold(sae, x))
    assert fitted.threshold == 2.0
    assert int((fitted.encode(x) > 0).sum()) == 1


def test_neighbouring_floats_are_told_apart() -> None:
    eye = torch.eye(2)
    sae = SparseAutoencoder(eye, torch.zeros(2), eye, torch.zeros(2), threshold=0.0, k=1)
    above = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0)).item()
    x = torch.tensor([[1.0, above]])
    fitted = replace(sae, threshold=fit_threshold(sae, x))
    assert (fitted.encode(x) > 0).tolist() == [[False, True]]


def test_nan_among_the_activations_is_refused() -> None:
    sae, x = make_sae(), tokens(100)
    x[-1, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="NaN"):
        fit_threshold(sae, x)


VARIANTS: list[Activation] = [
    AboveThresholds(torch.linspace(0, 3, 40, dtype=torch.float64)),
    TopK(),
    TopK(signed=True),
    GroupMax(),
]


@pytest.mark.parametrize("activation", VARIANTS, ids=str)
def test_some_features_are_those_columns_whatever_the_activation(activation: Activation) -> None:
    sae, x = replace(make_sae(), activation=activation), tokens(50)
    wanted = torch.tensor([39, 0, 7, 7])
    torch.testing.assert_close(sae.encode(x, wanted), sae.encode(x)[:, wanted])


@pytest.mark.parametrize("activation", [AboveThreshold(), *VARIANTS], ids=str)
def test_a_margin_is_above_1_where_a_feature_fires_and_below_where_not(
    activation: Activation,
) -> None:
    sae, x = replace(make_sae(), activation=activation, threshold=0.7), tokens(50)
    wanted = torch.tensor([39, 0, 7, 11])
    margins, fires = sae.margins(x, wanted), sae.encode(x, wanted) > 0
    told = margins.isfinite()
    assert told.double().mean() > 0.5 and fires[told].any() and not fires[told].all()
    assert bool((margins[told & fires] >= 1).all()) and bool((margins[told & ~fires] <= 1).all())
    twice = replace(sae, w_enc=2 * sae.w_enc, b_enc=2 * sae.b_enc).margins(x, wanted)
    scaled = isinstance(activation, AboveThreshold | AboveThresholds)  # the others' bar scales too
    torch.testing.assert_close(twice, 2 * margins if scaled else margins, equal_nan=True)


def test_a_plain_relu_has_no_margin() -> None:
    sae = replace(make_sae(), threshold=0.0)
    assert bool(sae.margins(tokens(5), torch.tensor([1, 2])).isnan().all())


def test_thresholds_cut_each_feature_at_its_own() -> None:
    thresholds = torch.tensor([1.0, 2.0])
    eye = torch.eye(2)
    sae = SparseAutoencoder(
        eye, torch.zeros(2), eye, torch.zeros(2), 0.0, 0, activation=AboveThresholds(thresholds)
    )
    x = torch.tensor([[1.0, 2.5], [1.5, 2.0], [-3.0, 0.0]])
    assert sae.encode(x).tolist() == [[0.0, 2.5], [1.5, 0.0], [0.0, 0.0]]


def test_top_k_keeps_the_largest_and_the_signed_one_negative_values_too() -> None:
    sae, x = make_sae(k=6), tokens(50)
    sae = replace(sae, b_enc=sae.b_enc - 3)
    pre = sae.pre_activations(x)
    kept = pre.argsort(dim=1, descending=True)[:, :6]
    signed = torch.zeros_like(pre).scatter(1, kept, pre.gather(1, kept))
    assert bool((signed < 0).any())
    assert torch.equal(replace(sae, activation=TopK(signed=True)).encode(x), signed)
    assert torch.equal(replace(sae, activation=TopK()).encode(x), signed.relu())


@pytest.mark.parametrize(
    ("activation", "k", "message"),
    [
        (TopK(), 0, "k is 0; with 40 features"),
        (TopK(), 41, "k is 41"),
        (GroupMax(), 7, "cannot be cut into k = 7"),
        (AboveThresholds(torch.ones(39)), 4, r"thresholds has shape \[39\].*\[40\]"),
    ],
)
def test_activations_that_cannot_be(activation: Activation, k: int, message: str) -> None:
    with pytest.raises(SaeError, match=message):
        replace(make_sae(), activation=activation, k=k)


@pytest.mark.parametrize("value", [-1.0, torch.nan, torch.inf])
def test_thresholds_that_cannot_be(value: float) -> None:
    with pytest.raises(SaeError, match="finite and not negative"):
        AboveThresholds(torch.tensor([1.0, value]))


@pytest.mark.parametrize("norm", [LayerNorm(), LayerNorm(0.5), ConstantNorm()])
def test_normalised_tokens_are_brought_back(norm: LayerNorm | ConstantNorm) -> None:
    sae, x = replace(make_sae(), token_norm=norm), 7 * tokens(50) + 3
    if isinstance(norm, LayerNorm):
        shift, scale = x.mean(1, keepdim=True), x.var(1, correction=1, keepdim=True).sqrt()
        seen = (x - shift) / (scale + norm.epsilon)
    else:
        shift, scale = 0.0, x.norm(dim=1, keepdim=True) / 12**0.5
        seen = x / scale
        torch.testing.assert_close(seen.square().sum(1), torch.full((50,), 12.0).double())
    plain = make_sae()
    torch.testing.assert_close(sae.encode(x), plain.encode(seen))
    codes = sae.encode(x)
    torch.testing.assert_close(sae.decode(codes, like=x), plain.decode(codes) * scale + shift)
    torch.testing.assert_close(sae.output_scale(x), scale)
    with pytest.raises(SaeError, match=r"decode\(codes, like=tokens\)"):
        sae.decode(codes)


def test_a_feature_contributes_its_scaled_row() -> None:
    for norm in (None, LayerNorm(), ConstantNorm()):
        sae, x = replace(make_sae(), token_norm=norm), tokens(20)
        codes = sae.encode(x)
        without = codes.clone()
        without[:, 3] = 0
        gone = sae.decode(codes, like=x) - sae.decode(without, like=x)
        contribution = sae.output_scale(x) * codes[:, 3:4] * sae.w_dec[3]
        torch.testing.assert_close(gone, contribution)


def test_a_token_of_zeros_stays_finite() -> None:
    for norm in (LayerNorm(), ConstantNorm()):
        sae = replace(make_sae(), token_norm=norm)
        x = torch.zeros(2, 12, dtype=torch.float64)
        assert bool(sae.decode(sae.encode(x), like=x).isfinite().all())


def test_thresholds_move_with_the_sae() -> None:
    sae = replace(make_sae(), activation=VARIANTS[0]).to("meta")
    assert isinstance(sae.activation, AboveThresholds)
    assert sae.activation.thresholds.is_meta
