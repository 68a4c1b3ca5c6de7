"""One BatchTopK training step on a GPU, in units of what it cannot avoid.

That is the product x · W_enc in bfloat16, and the optimiser's traffic: weights and both moments of
both matrices, read once and written once. Each is timed by CUDA events in the process of the step.
``python benchmarks/sae_step.py --device cuda``
"""

import statistics
from collections.abc import Callable
from typing import Literal

import torch
from sae_step import LEARNING_RATE, Batch, K, Step, mixtures

from vitscope.sae.parameters import initial_parameters
from vitscope.sae.plan import plan_training
from vitscope.sae.settings import SaeSettings
from vitscope.sae.source import TensorSource
from vitscope.sae.step import new_buffer, new_state, take_step

SHAPES, ROWS = ((768, 24_576), (1024, 32_768)), (4096, 8192)
"""Widths and features, of ViT-B and ViT-L at 32 features a dimension; batch sizes."""

ROUNDS, STEPS = 50, 500
WARM_UP = 10
"""Steps that compile, allocate, and have no cut to guess from."""

OPTIMISER_TENSORS = 3  # a weight and two moments, each read and written once


def cuda_timer() -> Callable[[Callable[[], object]], float]:
    """Return what times a call on the GPU, in milliseconds."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def timed(call: Callable[[], object]) -> float:
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    return timed


def gpu_step(batch: Batch, features: int, kind: Literal["torch", "triton"]) -> Step:
    """Return the trainer's step on the GPU, its encoder's product in bfloat16."""
    # nothing dies: the step without its auxiliary loss
    width = batch.shape[1]
    settings = SaeSettings(expansion=features // width, k=K, batch_size=batch.shape[0],
                           dead_after_tokens=10**12, step=kind,
                           matmul_dtype="bfloat16")  # fmt: skip
    source = TensorSource(batch.cpu())
    plan = plan_training(settings, source, seed=0, fingerprint="", device=batch.device)
    state = new_state(initial_parameters(width, features, seed=0).to(batch.device), kind)
    buffer = new_buffer(plan, batch)

    def step(x: Batch) -> None:
        with torch.no_grad():
            take_step(state, x, plan, LEARNING_RATE, buffer)

    return step


def gpu_row(rows: int, width: int, features: int, kind: Literal["torch", "triton"]) -> str:
    batches = [x.cuda() for x in mixtures(rows, width)]
    step = gpu_step(batches[0], features, kind)
    timed, (x, w) = cuda_timer(), (batches[0].bfloat16(), torch.randn(width, features).cuda())
    w = w.bfloat16()
    # as many bytes as weights and moments of both matrices: read once and written once
    tensors = [torch.zeros(2 * features * width, device="cuda") for _ in range(OPTIMISER_TENSORS)]
    products, traffic = list[float](), list[float]()
    for number in range(WARM_UP + ROUNDS):
        products.append(timed(lambda: torch.mm(x, w)))
        traffic.append(timed(lambda: torch._foreach_add_(tensors, 1.0)))
        step(batches[number % len(batches)])
    product, moved = (statistics.median(t[WARM_UP:]) for t in (products, traffic))
    # many in a row, as in training: the host runs ahead of the GPU, as far as it can
    taken = timed(lambda: [step(batches[n % len(batches)]) for n in range(STEPS)]) / STEPS
    return (
        f"{rows:>6}{width:>6}{features:>8}{product * 1e3:>12.0f}{moved * 1e3:>12.0f}"
        f"{taken * 1e3:>9.0f}{taken / (product + moved):>7.2f}{rows / taken * 1e3:>14,.0f}"
        f"  {kind}"
    )


def table_of_gpu() -> None:
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; K = {K}")
    print(f"{'B':>6}{'d':>6}{'m':>8}{'product µs':>12}{'traffic µs':>12}{'step µs':>9}{'ratio':>7}"
          f"{'tokens/s':>14}")  # fmt: skip
    for width, features in SHAPES:
        for rows in ROWS:
            for kind in ("torch", "triton"):
                print(gpu_row(rows, width, features, kind), flush=True)
