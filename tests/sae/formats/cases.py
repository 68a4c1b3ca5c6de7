"""The files under ``fixtures/``: SAEs that other libraries saved, and what they compute."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

FIXTURES = Path(__file__).parent / "fixtures"


@dataclass(frozen=True, eq=False)
class Expected:
    """Inputs of a library's SAE, with its codes and its reconstructions."""

    x: Tensor
    codes: Tensor
    x_hat: Tensor


def expected(folder: Path) -> Expected:
    return Expected(**load_file(f"{folder}.expected.safetensors"))


def folders(library: str = "*") -> list[Path]:
    found = sorted(FIXTURES.glob(f"{library}/*.expected.safetensors"))
    return [path.with_name(path.name.removesuffix(".expected.safetensors")) for path in found]


def parameters(library: str = "*") -> list[object]:
    """Every case of a library as a parameter of a test, under its name."""
    return [
        pytest.param(folder, id=f"{folder.parent.name}/{folder.name}")
        for folder in folders(library)
    ]
