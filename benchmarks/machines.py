"""Other machines, imitated by environment variables, and what a process computes to show it.

Every library that adds floating-point numbers picks its instructions when it is loaded, and each
has a variable that forbids the newer ones. Fused multiply-adds, vector widths, the order of sums
and approximations of exp or erf then differ as they do on an older or another processor.
"""

import hashlib
from pathlib import Path

import numba
import numpy as np
import torch
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
from torch.nn import functional

import vitscope as vs
from vitscope.draws import generator
from vitscope.embedded.scene import render_scene

PLAIN = "plain"
OLDEST = "all of these, two threads"

N_SCENES = 40
N_TOKEN_IMAGES = 32
N_MAPS = 2000


def environments(scratch: Path) -> dict[str, dict[str, str]]:
    """Return the variables of each machine by name, the plain one first."""
    newer = " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name))
    sets = {
        "torch without AVX": {"ATEN_CPU_CAPABILITY": "default"},
        "torch with AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
        "MKL, compatible": {"MKL_CBWR": "COMPATIBLE"},
        "oneDNN, SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
        "NumPy, its baseline": {"NPY_DISABLE_CPU_FEATURES": newer},
        "OpenBLAS, Nehalem": {"OPENBLAS_CORETYPE": "Nehalem"},
        "numba, generic": {
            "NUMBA_CPU_NAME": "generic",
            "NUMBA_CPU_FEATURES": "",
            "NUMBA_CACHE_DIR": str(scratch / "numba"),
        },
        # a thread that waits for another must not spin: cores may be shared
        "two threads": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"},
    }
    everything = {key: value for own in sets.values() for key, value in own.items()}
    everything["ATEN_CPU_CAPABILITY"] = "default"
    machines = {PLAIN: {}, **sets, OLDEST: everything}
    return {name: {"OMP_NUM_THREADS": "1", **own} for name, own in machines.items()}


def probe_arrays() -> dict[str, np.ndarray]:
    """Compute something with every library, from inputs that are the same anywhere."""
    draws = generator("machines")
    a, b = (draws.random((400, 384), np.float32) - 0.5 for _ in range(2))
    first, second = torch.from_numpy(a), torch.from_numpy(b)
    images = torch.from_numpy(draws.random((4, 3, 80, 80), np.float32))
    kernel = torch.from_numpy(draws.random((128, 3, 8, 8), np.float32) - 0.5)
    maps = draws.random((2, N_MAPS, 13, 13))
    scenes = np.stack([render_scene(1, index, 88).image for index in range(N_SCENES)])
    backbone = vs.load_backbone("scenes-vit")
    views = torch.from_numpy(scenes[:N_TOKEN_IMAGES, :, 4:84, 4:84].copy())
    computed = {
        "torch, matrix product (MKL)": (first @ second.T).numpy(),
        "torch, convolution (oneDNN)": functional.conv2d(images, kernel, stride=8).numpy(),
        "torch, GELU (oneDNN)": functional.gelu(first).numpy(),
        "torch, softmax (own)": first.softmax(1).numpy(),
        "NumPy, exp": np.exp(a),
        "NumPy, matrix product (OpenBLAS)": a @ b.T,
        "numba, sum in any order": np.asarray(_total(maps.ravel())),
        "exact EMD (numba)": np.asarray(vs.emd(maps[0], maps[1])),
        "scenes (numba)": scenes,
        "tokens of scenes-vit": backbone.tokens(views).patch.float().numpy(),
    }
    return {name: np.ascontiguousarray(found) for name, found in computed.items()}


@numba.njit(fastmath=True)
def _total(values: np.ndarray) -> float:
    total = 0.0
    for value in values:
        total += value
    return total


def changed(found: dict[str, np.ndarray], plain: dict[str, np.ndarray]) -> list[str]:
    """Return what differs in any bit."""
    return [name for name in plain if _digest(found[name]) != _digest(plain[name])]


def _digest(array: np.ndarray) -> bytes:
    return hashlib.sha256(array.tobytes()).digest()
