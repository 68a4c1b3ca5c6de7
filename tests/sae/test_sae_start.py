"""The encoder before the first step: a scale between 1 and the best, and JumpReLU's θ."""

import pytest
import torch
from tests.sae.planted_codes import mixtures, unit_atoms

from vitscope.sae.objective import evaluate
from vitscope.sae.parameters import (
    TOWARDS_BEST,
    fit_normalisation,
    initial_parameters,
    started_parameters,
)
from vitscope.sae.plan import plan_training
from vitscope.sae.settings import MethodName, SaeSettings
from vitscope.sae.source import TensorSource


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
