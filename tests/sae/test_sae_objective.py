import pytest
import torch
from dense_sae import autograd_leaves, dense_loss, random_parameters
from torch import Tensor

from vitscope.sae.objective import Objective, evaluate
from vitscope.sae.optimiser import EPSILON, UnitDecoderAdam
from vitscope.sae.parameters import Parameters
from vitscope.sae.sparse_code import SparseCode, decode, value_gradients

WIDTH, FEATURES, BATCH = 12, 40, 24


def inputs(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    g = torch.Generator().manual_seed(100 + seed)
    return torch.randn(BATCH, WIDTH, generator=g, dtype=dtype) + 0.2


def dead_mask(n_dead: int) -> Tensor:
    dead = torch.zeros(FEATURES, dtype=torch.bool)
    dead[torch.randperm(FEATURES, generator=torch.Generator().manual_seed(3))[:n_dead]] = True
    return dead


@pytest.mark.parametrize("n_dead", [0, 1, 5, 39])
@pytest.mark.parametrize("b_enc_shift", [0.0, -2.5, -100.0])
@pytest.mark.parametrize("k", [1, 4])
def test_every_gradient_equals_dense_autograd(n_dead: int, b_enc_shift: float, k: int) -> None:
    objective = Objective(k=k, aux_k=6, aux_coefficient=1 / 3)
    parameters, x, dead = (
        random_parameters(WIDTH, FEATURES, seed=n_dead),
        inputs(k),
        dead_mask(n_dead),
    )
    parameters.b_enc.add_(b_enc_shift)  # -2.5: fewer positive than wanted; -100: none at all
    leaves = autograd_leaves(parameters)
    loss, auxiliary = dense_loss(leaves, x, objective, dead)
    (loss + objective.aux_coefficient * auxiliary).backward()

    ours = evaluate(parameters, x, objective, dead=dead)

    torch.testing.assert_close(ours.loss, loss.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.auxiliary, auxiliary.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.fvu, ((loss * x.numel()) / (x**2).sum()).detach())
    for name, gradient in ours.gradients.named().items():
        expected = leaves.named()[name].grad
        expected = torch.zeros_like(gradient) if expected is None else expected
        torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-14, msg=name)


def test_auxiliary_gradient_reaches_the_encoder_rows_of_dead_features() -> None:
    parameters, x, dead = random_parameters(WIDTH, FEATURES, seed=0), inputs(0), dead_mask(8)
    parameters.b_enc[dead] = -1.0  # sometimes positive, seldom among the largest of the batch
    objective = Objective(k=1, aux_k=4, aux_coefficient=1 / 32)
    with_aux = evaluate(parameters, x, objective, dead=dead).gradients.w_enc
    without = evaluate(parameters, x, objective).gradients.w_enc
    difference = (with_aux - without).norm(dim=1)
    assert (difference[dead] > 0).any()
    assert torch.equal(difference[~dead], torch.zeros(FEATURES - 8, dtype=torch.float64))


def test_buffer_changes_nothing() -> None:
    parameters, x = random_parameters(WIDTH, FEATURES, seed=1), inputs(1)
    objective = Objective(k=3, aux_k=4, aux_coefficient=1 / 32)
    buffer = torch.full((BATCH, FEATURES), float("nan"), dtype=torch.float64)
    first = evaluate(parameters, x, objective, dead=dead_mask(4))
    second = evaluate(parameters, x, objective, dead=dead_mask(4), buffer=buffer)
    for name, gradient in first.gradients.named().items():
        assert torch.equal(gradient, second.gradients.named()[name])


def test_a_code_without_entries_decodes_to_zero() -> None:
    none = torch.empty(0, dtype=torch.int64)
    code = SparseCode(none, none, torch.empty(0), 3, FEATURES)
    w_dec = torch.ones(FEATURES, WIDTH)
    assert torch.equal(decode(code, w_dec), torch.zeros(3, WIDTH))
    assert value_gradients(code, w_dec, torch.ones(3, WIDTH)).numel() == 0


def _reference_step(
    leaves: Parameters, adam: torch.optim.Adam, x: Tensor, objective: Objective, dead: Tensor
) -> None:
    adam.zero_grad()
    loss, auxiliary = dense_loss(leaves, x, objective, dead)
    (loss + objective.aux_coefficient * auxiliary).backward()
    w = leaves.w_dec.detach()
    assert leaves.w_dec.grad is not None
    for j in range(FEATURES):  # project row by row
        g = leaves.w_dec.grad[j]
        g -= torch.dot(g, w[j]) / torch.dot(w[j], w[j]) * w[j]
    adam.step()
    with torch.no_grad():
        leaves.w_dec.div_(leaves.w_dec.norm(dim=1, keepdim=True))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-4)])
def test_thirty_steps_equal_default_adam_on_the_dense_form(
    dtype: torch.dtype, tolerance: float
) -> None:
    objective = Objective(k=3, aux_k=5, aux_coefficient=1 / 32)
    ours = random_parameters(WIDTH, FEATURES, seed=7, dtype=dtype)
    leaves, dead = autograd_leaves(ours), dead_mask(6)
    adam = torch.optim.Adam(
        list(leaves.named().values()), lr=0, eps=EPSILON, foreach=False, fused=False
    )
    mine = UnitDecoderAdam(ours)
    start = ours.w_enc.clone()
    for step in range(30):
        rate, x = 1e-3 * (1 + step % 4), inputs(step, dtype)
        adam.param_groups[0]["lr"] = rate
        _reference_step(leaves, adam, x, objective, dead)
        mine.step(evaluate(ours, x, objective, dead=dead).gradients, rate)
    assert (ours.w_enc - start).abs().max() > 0.01
    torch.testing.assert_close(ours.w_dec.norm(dim=1), torch.ones(FEATURES, dtype=dtype))
    for name, tensor in ours.named().items():
        torch.testing.assert_close(
            tensor, leaves.named()[name].detach(), rtol=tolerance, atol=tolerance, msg=name
        )
