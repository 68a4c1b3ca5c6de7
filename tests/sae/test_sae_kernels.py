"""The Triton kernels without a GPU: run by the interpreter, and compiled for GPUs."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vitscope.distributed import ALONE, JobRanks
from vitscope.errors import SaeError
from vitscope.sae.precision import has_kernels, lacks_triton, products_rounded_to
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


@needs_triton
def test_kernels_compile_for_gpus(tmp_path: Path) -> None:
    lines = run([str(HERE / "compile_kernels.py")], TRITON_CACHE_DIR=str(tmp_path)).splitlines()
    names = {line.split()[1] for line in lines}
    assert {"list_candidates", "count_digits", "settle_digit", "count_ties", "limit_ties",
            "list_kept", "reconstruct_tokens", "judge_step", "sum_segments", "update_rows",
            "update_vector", "count_silence"} == names  # fmt: skip
    assert {line.split()[0] for line in lines} == {"sm_80", "sm_90"}


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


def test_kernels_are_for_batch_topk_on_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    settings = SaeSettings()
    assert has_kernels(settings, CUDA, ALONE)
    assert not has_kernels(settings, CPU, ALONE)
    assert not has_kernels(settings, CUDA, JobRanks(0, 2))
    assert not has_kernels(SaeSettings(method="matryoshka"), CUDA, ALONE)
    assert not lacks_triton(settings, CUDA, ALONE)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not has_kernels(settings, CUDA, ALONE)
    assert lacks_triton(settings, CUDA, ALONE)
    assert not lacks_triton(settings, CPU, ALONE)


def test_products_are_rounded_where_the_kernels_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert products_rounded_to(SaeSettings(), CUDA, ALONE) == "bfloat16"
    assert products_rounded_to(SaeSettings(), CPU, ALONE) == "float32"
    exact, rounded = SaeSettings(matmul_dtype="float32"), SaeSettings(matmul_dtype="bfloat16")
    assert products_rounded_to(exact, CUDA, ALONE) == "float32"
    assert products_rounded_to(rounded, CUDA, ALONE) == "bfloat16"
    with pytest.raises(SaeError, match=r"batch-topk on cpu.*choose auto or float32"):
        products_rounded_to(rounded, CPU, ALONE)
