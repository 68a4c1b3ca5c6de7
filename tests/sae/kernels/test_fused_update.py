"""Whole steps with the fused update against the torch step's."""

from pathlib import Path

import pytest
import torch
from tests.sae.dense_sae import random_parameters
from torch import Tensor

from vitscope.sae import plan as planning
from vitscope.sae.optimiser import UnitDecoderAdam
from vitscope.sae.plan import TrainingPlan, plan_training
from vitscope.sae.settings import SaeSettings
from vitscope.sae.source import TensorSource
from vitscope.sae.step import TrainingState, new_state, take_step
from vitscope.sae.training import train_sae
from vitscope.sae.triton_kernels import FusedRowUpdate

WIDTH, FEATURES, BATCH, K = 5, 15, 7, 2


def batch(number: int) -> Tensor:
    g = torch.Generator().manual_seed(100 + number)
    return torch.randn(BATCH, WIDTH, generator=g) + 0.2


def planned(**given: object) -> TrainingPlan:
    settings = SaeSettings.model_validate(
        {"expansion": FEATURES // WIDTH, "k": K, "batch_size": BATCH, "steps": 1000, **given}
    )
    return plan_training(settings, TensorSource(batch(0)), seed=0, fingerprint="")


def fresh(segment: int | None = None) -> TrainingState:
    """A state for torch steps; with ``segment``, one for the fused update."""
    parameters = random_parameters(WIDTH, FEATURES, seed=1, dtype=torch.float32)
    parameters.b_enc[-1] = -50.0  # one feature never fires
    state = new_state(parameters)
    if segment is not None:
        state.optimiser = UnitDecoderAdam(parameters, row_update=FusedRowUpdate(segment))
    return state


def rate(number: int) -> float:
    return 1e-3 * (1 + number % 4)


def assert_alike(ours: TrainingState, reference: TrainingState, tolerance: float) -> None:
    tensors = reference.parameters.named() | reference.optimiser.state_tensors()
    found = ours.parameters.named() | ours.optimiser.state_tensors()
    for name, tensor in tensors.items():
        torch.testing.assert_close(found[name], tensor, rtol=tolerance, atol=tolerance, msg=name)
    assert torch.equal(ours.silent_tokens, reference.silent_tokens)


# fewer are chosen than are dead, as products over the dead and as sums over the chosen; or more
@pytest.mark.parametrize(("aux_k", "dense", "steps"), [(2, 16, 20), (2, 0, 6), (30, 16, 6)])
@pytest.mark.parametrize("method", ["batch-topk", "topk", "matryoshka"])
def test_steps_equal_torch_s(
    method: str, aux_k: int, dense: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitscope.sae.objective._DENSE_UP_TO", dense)
    plan = planned(dead_after_tokens=2 * BATCH, aux_k=aux_k, method=method, prefixes=[0.3, 1.0])
    reference, ours = fresh(), fresh(segment=64)
    start, revived = ours.parameters.w_enc.clone(), 0
    with torch.no_grad():
        for number in range(steps):
            expected = take_step(reference, batch(number), plan, rate(number))
            found = take_step(ours, batch(number), plan, rate(number))
            revived += expected.auxiliary > 0
            for name in ("step", "loss", "auxiliary", "fvu", "l0", "dead_share"):
                assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-5)
    assert revived > steps // 3
    assert (ours.parameters.w_enc - start).abs().max() > 0.005
    assert_alike(ours, reference, 1e-5)


@pytest.mark.parametrize("segment", [1, 2, 64])
def test_a_feature_on_every_token_in_segments_of_any_size(segment: int) -> None:
    plan = planned(aux_coefficient=0)
    reference, ours = fresh(), fresh(segment)
    for state in (reference, ours):
        state.parameters.b_enc[4] = 30.0
        state.parameters.b_enc[5] = 20.0
    with torch.no_grad():
        for number in range(3):
            take_step(reference, batch(number), plan, 1e-2)
            take_step(ours, batch(number), plan, 1e-2)
    assert_alike(ours, reference, 2e-5)


@pytest.mark.parametrize("shift", [-3.0, -100.0])
def test_few_and_no_positive_entries(shift: float) -> None:
    plan = planned(aux_coefficient=0)
    reference, ours = fresh(), fresh(segment=64)
    with torch.no_grad():
        for state in (reference, ours):
            state.parameters.b_enc.add_(shift)
            for number in range(2):
                take_step(state, batch(number), plan, 1e-2)
    assert reference.figures is not None
    assert reference.figures.l0 < K
    assert ours.figures is not None
    assert ours.figures.l0 == reference.figures.l0
    assert_alike(ours, reference, 1e-5)


def test_a_second_run_is_equal_to_the_bit() -> None:
    plan = planned(dead_after_tokens=BATCH)
    states = [fresh(segment=2), fresh(segment=2)]
    with torch.no_grad():
        for state in states:
            for number in range(3):
                take_step(state, batch(number), plan, 1e-2)
    for name, tensor in states[0].parameters.named().items():
        assert torch.equal(tensor, states[1].parameters.named()[name])


def test_a_training_of_fused_steps_ends_like_one_of_torch_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = TensorSource(torch.randn(60, WIDTH, generator=torch.Generator().manual_seed(0)))
    given = SaeSettings(
        expansion=3, k=K, batch_size=20, steps=7, log_every=3, evaluate_every=5,
        dead_after_tokens=40, checkpoint_every=4, held_out="none",
    )  # fmt: skip
    expected = train_sae(source, given, seed=0, log=tmp_path / "torch.jsonl")
    fused = given.model_copy(update={"step": "triton"})

    def float32(device: torch.device, settings: SaeSettings) -> str:
        return "float32"  # and no complaint that the interpreter is no CUDA device

    monkeypatch.setattr(planning, "matmul_dtype_on", float32)
    found = train_sae(source, fused, seed=0, log=tmp_path / "triton.jsonl")
    assert not torch.equal(found.sae.w_enc, expected.sae.w_enc), "another order of the sums"
    torch.testing.assert_close(found.sae.w_enc, expected.sae.w_enc, rtol=1e-5, atol=1e-5)
    assert found.sae.threshold == pytest.approx(expected.sae.threshold, rel=1e-4)
    assert found.final.l0 == expected.final.l0
    assert found.final.dead_share == expected.final.dead_share
    lines = [(tmp_path / f"{name}.jsonl").read_text().splitlines() for name in ("torch", "triton")]
    assert len(lines[0]) == len(lines[1]) > 2
