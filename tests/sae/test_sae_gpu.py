"""Steps on a GPU against the CPU's, where there is a GPU; skipped, and so unproven, elsewhere."""

import importlib.util
from typing import Literal

import pytest
import torch
from tests.sae.dense_sae import random_parameters
from torch import Tensor

from vitscope.sae.plan import TrainingPlan, plan_training
from vitscope.sae.selection import PreActivationBuffer
from vitscope.sae.settings import SaeSettings
from vitscope.sae.source import TensorSource
from vitscope.sae.step import TrainingState, new_state, take_step

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


def fresh(device: str, step: Literal["torch", "triton"] = "torch") -> TrainingState:
    drawn = random_parameters(WIDTH, FEATURES, seed=1, dtype=torch.float32)
    drawn.b_enc[:3] += 30.0  # features on every token: their entries are cut into segments
    return new_state(drawn.to(device), step)


@pytest.mark.parametrize("step", ["torch", "triton"])
@pytest.mark.parametrize("dead_after", [2 * BATCH, 10**9])
def test_steps_on_a_gpu_equal_the_cpus(dead_after: int, step: Literal["torch", "triton"]) -> None:
    plan, reference, ours = planned(dead_after), fresh("cpu"), fresh(DEVICE, step)
    with torch.no_grad():
        for number in range(10):
            take_step(reference, batch(number), plan, 1e-3)
            take_step(ours, batch(number).to(DEVICE), plan, 1e-3)
    assert ours.figures is not None
    assert reference.figures is not None
    assert ours.figures.loss == pytest.approx(reference.figures.loss, rel=1e-4)
    for name, tensor in reference.parameters.named().items():
        torch.testing.assert_close(
            ours.parameters.named()[name].cpu(), tensor, rtol=1e-4, atol=1e-4, msg=name
        )


def test_a_rounded_product_on_a_gpu() -> None:
    x, w_enc = batch(0), random_parameters(WIDTH, FEATURES, seed=1, dtype=torch.float32).w_enc
    found = list[Tensor]()
    for device in ("cpu", DEVICE):
        buffer = PreActivationBuffer(BATCH, FEATURES, x.to(device), torch.bfloat16)
        buffer.encode(x.to(device), w_enc.to(device), torch.zeros(FEATURES, device=device))
        found.append(buffer.block(0, FEATURES).cpu())
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)
