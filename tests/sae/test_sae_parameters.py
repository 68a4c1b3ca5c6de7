"""Inputs normalised, folded back, and the weights before the first step."""

import pytest
import torch
from tests.sae.dense_sae import random_parameters
from tests.sae.planted_codes import mixtures, unit_atoms

from vitscope.errors import SaeError
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.objective import evaluate
from vitscope.sae.parameters import (
    TOWARDS_BEST,
    Normalisation,
    fit_normalisation,
    initial_parameters,
    started_parameters,
)
from vitscope.sae.plan import plan_training
from vitscope.sae.settings import MethodName, SaeSettings
from vitscope.sae.source import TensorSource


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


@pytest.mark.parametrize("method", ["batch-topk", "topk", "relu", "jumprelu", "matryoshka"])
def test_the_scale_lies_between_one_and_the_best(method: MethodName) -> None:
    raw = mixtures(unit_atoms(48, 24, seed=0), 4096, 3, noise=0.02, seed=1)
    x = fit_normalisation(raw).apply(raw)
    settings = SaeSettings(expansion=8, k=6, method=method, l1_coefficient=0, l0_coefficient=0)
    plan = plan_training(settings, TensorSource(x), seed=3, fingerprint="")
    parameters = started_parameters(plan, x)
    drawn = initial_parameters(24, 192, seed=3)
    assert torch.equal(parameters.w_dec, drawn.w_dec)
    scale = float((parameters.w_enc / drawn.w_enc).mean())
    torch.testing.assert_close(parameters.w_enc, drawn.w_enc * scale)

    def loss(times: float) -> float:
        parameters.w_enc.copy_(drawn.w_enc * times)
        if parameters.log_threshold is not None:
            parameters.log_threshold.copy_(theta + torch.tensor(times / scale).log())
        found = evaluate(parameters, x, plan.objective)
        if method in ("batch-topk", "jumprelu"):
            assert found.l0 == pytest.approx(6, rel=0.01)
        return float(found.fvu)

    theta = parameters.w_enc.new_zeros(192)
    if parameters.log_threshold is not None:
        theta = parameters.log_threshold.clone()
    best = scale ** (1 / TOWARDS_BEST)
    assert best < 0.8
    assert loss(best) < min(loss(best * 0.97), loss(best * 1.03), loss(scale)) < loss(1.0)


def test_thresholds_begin_where_all_features_are_equally_active() -> None:
    raw = mixtures(unit_atoms(48, 24, seed=0), 4096, 3, noise=0.02, seed=1)
    x = fit_normalisation(raw).apply(raw)
    settings = SaeSettings(expansion=8, k=6, method="jumprelu")
    parameters = started_parameters(
        plan_training(settings, TensorSource(x), seed=3, fingerprint=""), x
    )
    assert parameters.log_threshold is not None
    n_active = (x @ parameters.w_enc.T >= parameters.log_threshold.exp()).sum(0)
    assert set(n_active.tolist()) <= {127, 128, 129}  # 4,096 · 6 / 192; rounding of exp(log θ)
