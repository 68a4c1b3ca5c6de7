import pytest
import torch
from tests.sae.dense_sae import random_parameters

from vitscope.errors import SaeError
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.parameters import Normalisation, fit_normalisation, initial_parameters


def raw_tokens(n: int = 300, width: int = 10) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return 40 * torch.randn(n, width, generator=g, dtype=torch.float64) + torch.arange(width) * 30.0


def test_normalised_inputs_have_mean_zero_and_mean_squared_norm_d() -> None:
    x = raw_tokens()
    y = fit_normalisation(x).apply(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(10, dtype=y.dtype), atol=1e-12, rtol=0)
    assert float(y.square().sum(1).mean()) == pytest.approx(10, rel=1e-12)


def test_folded_sae_on_raw_tokens_equals_unfolded_on_normalised_ones() -> None:
    x = raw_tokens()
    normalisation = fit_normalisation(x)
    assert normalisation.scale < 0.1  # far from the trivial 1
    parameters = random_parameters(10, 32, seed=0)
    theta_normalised = 0.7
    folded = normalisation.fold(parameters)
    sae = SparseAutoencoder(
        folded.w_enc.T, folded.b_enc, folded.w_dec, folded.b_dec,
        threshold=theta_normalised / normalisation.scale, k=3,
    )  # fmt: skip

    y = (x - normalisation.mean) * normalisation.scale
    pre = (y - parameters.b_dec) @ parameters.w_enc.T + parameters.b_enc
    codes = torch.where(pre > theta_normalised, pre, 0.0)
    y_hat = codes @ parameters.w_dec + parameters.b_dec
    x_hat = y_hat / normalisation.scale + normalisation.mean

    assert (codes > 0).double().mean() > 0.05
    torch.testing.assert_close(sae.encode(x), codes / normalisation.scale, rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(sae.decode(sae.encode(x)), x_hat, rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(sae.w_dec.norm(dim=1), torch.ones(32, dtype=torch.float64))


def test_unusable_samples_are_named() -> None:
    x = raw_tokens().float()
    with pytest.raises(SaeError, match="too few"):
        fit_normalisation(x[:1])
    with pytest.raises(SaeError, match="are equal"):
        fit_normalisation(x[:1].expand(50, -1))
    for bad in (float("nan"), float("inf")):
        y = x.clone()
        y[3, 3] = bad
        with pytest.raises(SaeError, match="NaN or infinity"):
            fit_normalisation(y)


def test_a_large_common_mean_does_not_hide_a_small_spread() -> None:
    g = torch.Generator().manual_seed(1)
    spread = torch.randn(20_000, 4, generator=g, dtype=torch.float64)
    found = fit_normalisation(spread + 1e6)
    expected = fit_normalisation(spread)
    assert isinstance(found, Normalisation)
    assert found.scale == pytest.approx(expected.scale, rel=1e-6)


def test_initial_parameters() -> None:
    first, again = initial_parameters(16, 64, seed=3), initial_parameters(16, 64, seed=3)
    other = initial_parameters(16, 64, seed=4)
    assert torch.equal(first.w_enc, first.w_dec)
    assert torch.equal(first.w_dec, again.w_dec)
    assert not torch.equal(first.w_dec, other.w_dec)
    torch.testing.assert_close(first.w_dec.norm(dim=1), torch.ones(64))
    assert not first.b_enc.any()
    assert not first.b_dec.any()
