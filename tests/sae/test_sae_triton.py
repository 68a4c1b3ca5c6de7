"""The step ``triton`` without a GPU: run by the interpreter, compiled for GPUs, and refused."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vitscope.errors import SaeError
from vitscope.sae.plan import matmul_dtype_on
from vitscope.sae.selection import PreActivationBuffer
from vitscope.sae.settings import SaeSettings

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton comes with torch's CUDA builds"
)


def run(arguments: list[str], **environment: str) -> str:
    """Output of a process of its own; Triton reads its switches as it is imported."""
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@needs_triton
def test_kernels_equal_the_cpu_path_in_the_interpreter() -> None:
    tests = [
        "-m",
        "pytest",
        str(HERE / "kernels"),
        "-q",
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
    ]
    assert " passed" in run(tests, TRITON_INTERPRET="1")


@pytest.mark.slow
@needs_triton
def test_kernels_compile_for_gpus(tmp_path: Path) -> None:
    lines = run([str(HERE / "compile_triton.py")], TRITON_CACHE_DIR=str(tmp_path)).splitlines()
    names = {line.split()[1] for line in lines}
    assert names == {"sum_segments", "update_rows"}
    assert {line.split()[0] for line in lines} == {"sm_80", "sm_90"}


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to time")
def test_the_timer_says_that_there_is_no_gpu() -> None:
    script = HERE.parent.parent / "benchmarks" / "sae_step.py"
    done = subprocess.run(
        [sys.executable, str(script), "--device", "cuda"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("torch finds no CUDA device here")


CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def triton(**given: object) -> SaeSettings:
    return SaeSettings.model_validate({"step": "triton", **given})


def test_triton_is_refused_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SaeError, match=r"needs a CUDA device and Triton \(this is cpu\); leave it"):
        matmul_dtype_on(CPU, triton())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SaeError, match=r"needs a CUDA device and Triton \(this is cuda\)"):
        matmul_dtype_on(CUDA, triton())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(SaeError, match="has no jumprelu, only the top-k methods"):
        matmul_dtype_on(CUDA, triton(method="jumprelu"))
    assert matmul_dtype_on(CUDA, triton(method="matryoshka")) == "bfloat16"


def test_products_are_rounded_on_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert matmul_dtype_on(CUDA, SaeSettings()) == "float32"
    assert matmul_dtype_on(CPU, SaeSettings()) == "float32"
    assert matmul_dtype_on(CUDA, triton(matmul_dtype="float32")) == "float32"
    assert matmul_dtype_on(CUDA, SaeSettings(matmul_dtype="bfloat16")) == "bfloat16"
    with pytest.raises(SaeError, match=r"needs a CUDA device \(this is cpu\); choose auto or floa"):
        matmul_dtype_on(CPU, SaeSettings(matmul_dtype="bfloat16"))


def test_a_rounded_product_keeps_float32_sums() -> None:
    g = torch.Generator().manual_seed(0)
    x, w_enc = torch.randn(9, 64, generator=g), torch.randn(40, 64, generator=g)
    buffer = PreActivationBuffer(9, 40, like=x, rounded_to=torch.bfloat16)
    buffer.encode(x, w_enc, torch.zeros(40))
    exact = (w_enc.bfloat16().double() @ x.bfloat16().double().T).float()
    torch.testing.assert_close(buffer.block(0, 40), exact, rtol=1e-5, atol=1e-5)
    assert (buffer.block(0, 40) - w_enc @ x.T).abs().max() > 1e-3
