"""Compile every kernel as a training step launches it, for GPUs that need not be there.

Run by itself: the launches are recorded, with the types and constants they have, instead of
executed. Prints one line per kernel and target.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # else Triton 3.9 warns of a coming change

import torch
import triton
from tests.sae.dense_sae import random_parameters
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from vitscope.sae.plan import plan_training
from vitscope.sae.settings import SaeSettings
from vitscope.sae.source import TensorSource
from vitscope.sae.step import new_state, take_step

WIDTH, BATCH = 768, 64
POINTERS = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
    torch.int64: "*i64",
}

Launch = tuple[JITFunction[Any], dict[str, str], dict[str, Any], int]


def recorder(launches: list[Launch]) -> Callable[..., Any]:
    """Stand in for ``kernel[grid]``: note the call instead of making it."""

    def of_grid(kernel: JITFunction[Any], grid: tuple[int, ...]) -> Callable[..., None]:
        def call(*args: Any, num_warps: int = 4, **constants: Any) -> None:
            names = [name for name in kernel.arg_names if name not in constants]
            types = {name: type_of(value) for name, value in zip(names, args, strict=True)}
            types |= dict.fromkeys(constants, "constexpr")
            assert all(0 < n < 2**31 for n in grid)
            launches.append((kernel, types, constants, num_warps))

        return call

    return of_grid


def type_of(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return POINTERS[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


def recorded(dead_after: int) -> list[Launch]:
    """Launches of two steps, with the auxiliary loss where ``dead_after`` is short."""
    launches: list[Launch] = []
    settings = SaeSettings(expansion=1, k=3, batch_size=BATCH, dead_after_tokens=dead_after)
    x = torch.randn(BATCH, WIDTH)
    plan = plan_training(settings, TensorSource(x), seed=0, fingerprint="")
    state = new_state(random_parameters(WIDTH, WIDTH, seed=0, dtype=torch.float32), "triton")
    JITFunction.__getitem__ = recorder(launches)
    for _ in range(2):
        take_step(state, x, plan, 1e-3)
    return launches


def main(capabilities: list[int]) -> None:
    found = [launch for case in CASES for launch in recorded(case)]
    done = set[str]()
    for kernel, types, constants, num_warps in found:
        key = f"{kernel.__name__} {types} {constants} {num_warps}"
        if key in done:
            continue
        done.add(key)
        order = {name: types[name] for name in kernel.arg_names}
        values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
        for capability in capabilities:
            compiled = triton.compile(
                ASTSource(kernel, signature=order, constexprs=values),
                target=GPUTarget("cuda", capability, 32),
                options={"num_warps": num_warps},
            )
            size, shared = len(compiled.asm["cubin"]), compiled.metadata.shared
            line = f"sm_{capability} {kernel.__name__} {size} bytes, {shared} shared\n"
            sys.stdout.write(line)


CASES = [1, 10**9]
"""Tokens after which features are dead: with the auxiliary loss, and without."""

if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [80, 90])
