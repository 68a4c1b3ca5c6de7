"""Which training steps run on kernels of their own, and what their products are rounded to."""

import importlib.util

import torch

from vitscope.distributed import Ranks
from vitscope.errors import SaeError
from vitscope.sae.settings import SaeSettings

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def lacks_triton(settings: SaeSettings, device: torch.device, ranks: Ranks) -> bool:
    """Tell whether Triton alone is missing for :func:`has_kernels`."""
    return _fit(settings, device, ranks) and importlib.util.find_spec("triton") is None


def has_kernels(settings: SaeSettings, device: torch.device, ranks: Ranks) -> bool:
    """Tell whether :mod:`vitscope.sae.kernels` has this training's step.

    They are for batch top-k on one GPU. Other methods, several ranks, and a torch without Triton
    take the CPU's operations on the GPU, which wait for it at every selection and block.
    """
    return _fit(settings, device, ranks) and importlib.util.find_spec("triton") is not None


def _fit(settings: SaeSettings, device: torch.device, ranks: Ranks) -> bool:
    return settings.method == "batch-topk" and ranks.size == 1 and device.type == "cuda"


def products_rounded_to(settings: SaeSettings, device: torch.device, ranks: Ranks) -> str:
    """Return the name of the type that products' factors are rounded to.

    Raises:
        SaeError: bfloat16 is asked for where there are no kernels for it.
    """
    on_kernels = has_kernels(settings, device, ranks)
    if settings.matmul_dtype == "auto":
        return "bfloat16" if on_kernels else "float32"
    if settings.matmul_dtype == "bfloat16" and not on_kernels:
        raise SaeError(
            "matmul_dtype bfloat16 needs the method batch-topk on one CUDA device and Triton (this "
            f"is {settings.method} on {device.type}, ranks: {ranks.size}); choose auto or float32"
        )
    return settings.matmul_dtype
