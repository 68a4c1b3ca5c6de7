import pytest
import torch
from tests.sae.dense_sae import autograd_leaves, dense_loss, random_parameters
from torch import Tensor

from vitscope.sae.code import SparseCode
from vitscope.sae.gradients import sparse_row_gradients
from vitscope.sae.objective import evaluate
from vitscope.sae.optimiser import ADAM_EPSILON, UnitDecoderAdam
from vitscope.sae.parameters import Parameters
from vitscope.sae.selection import PreActivationBuffer
from vitscope.sae.settings import Objective

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
    for name, gradient in ours.gradients.whole(parameters).named().items():
        expected = leaves.named()[name].grad
        expected = torch.zeros_like(gradient) if expected is None else expected
        torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-14, msg=name)


def test_auxiliary_gradient_reaches_the_encoder_rows_of_dead_features() -> None:
    parameters, x, dead = random_parameters(WIDTH, FEATURES, seed=0), inputs(0), dead_mask(8)
    parameters.b_enc[dead] = -1.0  # sometimes positive, seldom among the largest of the batch
    objective = Objective(k=1, aux_k=4, aux_coefficient=1 / 32)
    with_aux = evaluate(parameters, x, objective, dead=dead).gradients.whole(parameters).w_enc
    without = evaluate(parameters, x, objective).gradients.whole(parameters).w_enc
    difference = (with_aux - without).norm(dim=1)
    assert (difference[dead] > 0).any()
    assert torch.equal(difference[~dead], torch.zeros(FEATURES - 8, dtype=torch.float64))


def test_a_buffer_used_again_changes_nothing() -> None:
    kept = PreActivationBuffer(BATCH, FEATURES, like=torch.empty(0, dtype=torch.float64))
    objective = Objective(k=3, aux_k=4, aux_coefficient=1 / 32)
    for seed in range(3):
        parameters, x = random_parameters(WIDTH, FEATURES, seed=seed), inputs(seed)
        first = evaluate(parameters, x, objective, dead=dead_mask(4))
        second = evaluate(parameters, x, objective, dead=dead_mask(4), buffer=kept)
        again = second.gradients.whole(parameters).named()
        for name, gradient in first.gradients.whole(parameters).named().items():
            assert torch.equal(gradient, again[name])


@pytest.mark.parametrize("n_dead", [0, 5, 39])
@pytest.mark.parametrize("rows_at_once", [1, 7, 32, 512])
def test_blocks_of_gradients_are_rows_of_the_whole(n_dead: int, rows_at_once: int) -> None:
    parameters, x = random_parameters(WIDTH, FEATURES, seed=2), inputs(2)
    objective = Objective(k=3, aux_k=2, aux_coefficient=1 / 3)
    rows = evaluate(parameters, x, objective, dead=dead_mask(n_dead)).gradients.rows
    whole = rows.block(0, FEATURES, parameters.w_dec)
    radial = (whole.w_dec * parameters.w_dec).sum(1)
    torch.testing.assert_close(whole.radial, radial, rtol=1e-10, atol=1e-14)
    for start in range(0, FEATURES, rows_at_once):
        stop = min(start + rows_at_once, FEATURES)
        part = rows.block(start, stop, parameters.w_dec[start:stop])
        for name in ("w_enc", "w_dec", "b_enc", "radial"):
            torch.testing.assert_close(
                getattr(part, name), getattr(whole, name)[start:stop], rtol=1e-13, atol=1e-16
            )


@pytest.mark.parametrize("rows_at_once", [1, 7, 16])
def test_a_blocked_update_equals_an_unblocked_one(rows_at_once: int) -> None:
    blocked, unblocked = (random_parameters(WIDTH, FEATURES, seed=3) for _ in range(2))
    objective = Objective(k=3, aux_k=4, aux_coefficient=1 / 32)
    adams = [UnitDecoderAdam(blocked, rows_at_once), UnitDecoderAdam(unblocked, FEATURES)]
    for step in range(10):
        for parameters, adam in zip((blocked, unblocked), adams, strict=True):
            found = evaluate(parameters, inputs(step), objective, dead=dead_mask(6))
            adam.step(found.gradients, 1e-3)
    for name, tensor in blocked.named().items():
        torch.testing.assert_close(tensor, unblocked.named()[name], rtol=1e-11, atol=1e-12)


def test_the_decoder_moves_along_the_sphere() -> None:
    parameters = random_parameters(WIDTH, FEATURES, seed=4)
    before = parameters.w_dec.clone()
    gradients = evaluate(parameters, inputs(4), Objective(3, 4, 0.0)).gradients
    UnitDecoderAdam(parameters).step(gradients, 1e-6)
    ones = torch.ones(FEATURES, dtype=torch.float64)
    torch.testing.assert_close(parameters.w_dec.norm(dim=1), ones, rtol=1e-12, atol=0)
    # Adam's first step is the sign of each element, taken of the gradient without its radial part
    whole = gradients.whole(random_parameters(WIDTH, FEATURES, seed=4)).w_dec
    tangent = whole - (whole * before).sum(1, keepdim=True) * before
    moved = parameters.w_dec - before
    touched = tangent.norm(dim=1) > 1e-6
    expected = -1e-6 * tangent.sign()
    expected -= (expected * before).sum(1, keepdim=True) * before
    assert touched.any()
    torch.testing.assert_close(moved[touched], expected[touched], rtol=1e-3, atol=1e-10)


def test_a_code_without_entries() -> None:
    none = torch.empty(0, dtype=torch.int64)
    code = SparseCode(none, none, torch.empty(0), 3, FEATURES)
    w_dec = torch.ones(FEATURES, WIDTH)
    assert torch.equal(code.decode(w_dec), torch.zeros(3, WIDTH))
    rows, _ = sparse_row_gradients(code, torch.ones(3, WIDTH), torch.ones(3, WIDTH))
    block = rows.block(0, FEATURES, w_dec)
    assert not block.w_enc.any()
    assert not block.w_dec.any()
    assert not block.b_enc.any()


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


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_thirty_steps_equal_default_adam_on_the_dense_form(
    dtype: torch.dtype, tolerance: float
) -> None:
    objective = Objective(k=3, aux_k=5, aux_coefficient=1 / 32)
    ours = random_parameters(WIDTH, FEATURES, seed=7, dtype=dtype)
    leaves, dead = autograd_leaves(ours), dead_mask(6)
    adam = torch.optim.Adam(
        list(leaves.named().values()), lr=0, eps=ADAM_EPSILON, foreach=False, fused=False
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
