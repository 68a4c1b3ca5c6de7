"""fp32, bf16 or fp16: matrix products only, so that the residual stream keeps its digits."""

from collections.abc import Generator
from contextlib import contextmanager

import torch

from vitscope.backbones.settings import Precision

_DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def matmul_precision(precision: Precision, device: torch.device) -> Generator[None]:
    """Run matrix products in ``precision``; weights and the residual stream stay fp32.

    ``fp32`` is meant literally: on CUDA the patch convolution would otherwise run in TF32.
    """
    if precision in _DTYPES:
        with torch.autocast(device.type, dtype=_DTYPES[precision]):
            yield
    elif device.type == "cuda":
        backend = torch.backends.cudnn
        with backend.flags(
            enabled=backend.enabled,
            benchmark=backend.benchmark,
            deterministic=backend.deterministic,
            allow_tf32=False,
        ):
            yield
    else:
        yield
