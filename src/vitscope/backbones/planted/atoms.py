"""The planted dictionary: orthonormal unit atoms, each with a known scope."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from vitscope.backbones.planted.spec import Border, Kind, PlantedSpec
from vitscope.draws import generator


@dataclass(frozen=True)
class Atom:
    """What is true of one planted atom.

    Attributes:
        kind: its scope.
        support: positions it takes in a view (global atoms), else None.
        border: where it sits (border atoms), else None.
    """

    kind: Kind
    support: int | None = None
    border: Border | None = None

    @property
    def family(self) -> str:
        """``local``, ``global-4``, ``border-frame`` …: atoms that share one closed form."""
        detail = self.support if self.border is None else self.border.value
        return self.kind.value if detail is None else f"{self.kind.value}-{detail}"


def list_atoms(spec: PlantedSpec) -> tuple[Atom, ...]:
    """Return every atom in dictionary order: local, then global, then border."""
    local = [Atom(Kind.LOCAL)] * spec.n_local
    of_view = [
        Atom(Kind.GLOBAL, support=n) for n in spec.supports for _ in range(spec.n_per_support)
    ]
    border = [Atom(Kind.BORDER, border=b) for b in Border for _ in range(spec.n_per_border)]
    return (*local, *of_view, *border)


def draw_atoms(spec: PlantedSpec) -> Float32[Tensor, "n_atoms d"]:
    """Return orthonormal atoms [n_atoms, d], a pure function of the seed."""
    gaussian = generator(spec.seed, "atoms").standard_normal((spec.width, spec.n_atoms))
    basis, _ = np.linalg.qr(gaussian)
    return torch.from_numpy(np.ascontiguousarray(basis.T)).float()


def draw_bias(spec: PlantedSpec) -> Float32[Tensor, "d"]:
    """Return the vector [d] that every token carries, as real residual streams do."""
    direction = generator(spec.seed, "bias").standard_normal(spec.width)
    return torch.from_numpy(spec.bias_norm * direction / np.linalg.norm(direction)).float()
