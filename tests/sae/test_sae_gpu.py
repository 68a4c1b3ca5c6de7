"""Steps on a GPU against the CPU's, where there is a GPU; skipped, and so unproven, elsewhere."""

import importlib.util

import pytest
import torch
from tests.sae.dense_sae import random_parameters
from torch import Tensor

from vitscope.sae.parameters import Parameters
from vitscope.sae.plan import TrainingPlan, plan_training
from vitscope.sae.settings import SaeSettings
from vitscope.sae.source import TensorSource
from vitscope.sae.state import TrainingState, new_state
from vitscope.sae.step import take_step

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or importlib.util.find_spec("triton") is None,
    reason="needs a CUDA device and Triton",
)

WIDTH, FEATURES, BATCH, K = 96, 960, 300, 8
DEVICE = "cuda"


def batch(number: int) -> Tensor:
    g = torch.Generator().manual_seed(number)
    return torch.randn(BATCH, WIDTH, generator=g) + 0.2


def planned(dead_after: int) -> TrainingPlan:
    settings = SaeSettings(
        expansion=FEATURES // WIDTH, k=K, batch_size=BATCH, steps=1000, dead_after_tokens=dead_after
    )
    return plan_training(settings, TensorSource(batch(0)), seed=0, fingerprint="")


def fresh(device: str) -> TrainingState:
    drawn = random_parameters(WIDTH, FEATURES, seed=1, dtype=torch.float32).named()
    drawn["b_enc"][:3] += 30.0  # features on every token: their entries are cut into segments
    return new_state(Parameters(**{name: tensor.to(device) for name, tensor in drawn.items()}))


@pytest.mark.parametrize("dead_after", [2 * BATCH, 10**9])
def test_steps_on_a_gpu_equal_the_cpus(dead_after: int) -> None:
    from vitscope.sae.kernels.device_stepper import DeviceStepper

    plan, reference, ours = planned(dead_after), fresh("cpu"), fresh(DEVICE)
    stepper = DeviceStepper(ours, plan, torch.float32)
    with torch.no_grad():
        for number in range(10):
            take_step(reference, batch(number), plan, 1e-3)
            stepper.take(batch(number).to(DEVICE), 1e-3)
        stepper.read()
    assert ours.figures is not None
    assert reference.figures is not None
    assert ours.figures.loss == pytest.approx(reference.figures.loss, rel=1e-4)
    for name, tensor in reference.parameters.named().items():
        torch.testing.assert_close(
            ours.parameters.named()[name].cpu(), tensor, rtol=1e-4, atol=1e-4, msg=name
        )


def test_the_host_never_waits_in_a_step() -> None:
    from vitscope.sae.kernels.device_stepper import DeviceStepper

    stepper = DeviceStepper(fresh(DEVICE), planned(10**9), torch.bfloat16)
    batches = [batch(number).to(DEVICE) for number in range(6)]
    with torch.no_grad():
        for x in batches[:3]:
            stepper.take(x, 1e-3)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for x in batches[3:]:
                stepper.take(x, 1e-3)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        stepper.read()
