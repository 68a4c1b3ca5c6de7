"""The numbers that define a planted backbone, and its dictionary: orthonormal atoms of known scope.

Every closed form is a function of these numbers.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from vitscope.draws import generator
from vitscope.store.atomic import fingerprint


class Kind(StrEnum):
    """The scope of a planted atom."""

    LOCAL = "local"
    GLOBAL = "global"
    BORDER = "border"


class Border(StrEnum):
    """Where in the view a border atom sits, whatever the view shows."""

    FRAME = "frame"
    CORNERS = "corners"
    EDGE = "edge"
    INTERIOR = "interior"


@dataclass(frozen=True)
class HeadSpec:
    """Where one attention head's mass goes for an ordinary patch query; the rest is on itself.

    Attributes:
        cls: share on the CLS token.
        outliers: share spread evenly over the view's outlier positions.
        locked: share on one cell fixed in the view, whatever its content.
    """

    cls: float
    outliers: float
    locked: float


@dataclass(frozen=True)
class PlantedSpec:
    """Sizes, amplitudes and shares of a planted backbone.

    Attributes:
        grid: p, patches per side.
        patch: n, pixels per patch side.
        width: d; at least the number of atoms, since atoms are orthonormal.
        n_local: local atoms.
        pool: local atoms that a visual word may show.
        atoms_per_patch: of these, how many a patch shows, chosen by its own pixels.
        supports: number of positions of a global atom, one family of atoms for each entry.
        n_per_support: global atoms in each family; one of a family is active in a view.
        n_per_border: border atoms of each kind; one of a kind is active in a view.
        local_amplitude: lowest and highest activation of a local atom.
        global_amplitude: activation of a global atom whose image is least and most typical of it.
        border_amplitude: lowest and highest activation of a border atom.
        noise: standard deviation of the isotropic noise, per dimension.
        bias_norm: norm of the vector added to every token.
        heads: attention heads.
        seed: decides atoms, words and every hash.
        revision: raised when ``mixture.py`` changes what it computes.
    """

    grid: int = 14
    patch: int = 8
    width: int = 192
    n_local: int = 128
    pool: int = 6
    atoms_per_patch: int = 3
    supports: tuple[int, ...] = (1, 2, 4, 8)
    n_per_support: int = 6
    n_per_border: int = 2
    local_amplitude: tuple[float, float] = (2.0, 4.0)
    global_amplitude: tuple[float, float] = (30.0, 50.0)
    border_amplitude: tuple[float, float] = (4.0, 6.0)
    noise: float = 0.1
    bias_norm: float = 4.0
    heads: tuple[HeadSpec, ...] = (HeadSpec(0.05, 0.10, 0.05), HeadSpec(0.05, 0.30, 0.00))
    seed: int = 0
    revision: int = 1

    def __post_init__(self) -> None:
        if self.n_atoms > self.width:
            raise ValueError(
                f"{self.n_atoms} orthonormal atoms do not fit in width {self.width}; "
                "lower n_local or raise width"
            )

    @property
    def n_global(self) -> int:
        """Global atoms over all families."""
        return len(self.supports) * self.n_per_support

    @property
    def n_border(self) -> int:
        """Border atoms over all kinds."""
        return len(Border) * self.n_per_border

    @property
    def n_atoms(self) -> int:
        """All atoms: local first, then global, then border."""
        return self.n_local + self.n_global + self.n_border

    @property
    def n_outliers(self) -> int:
        """Outlier positions of a view: each hosts one global atom."""
        return sum(self.supports)

    @property
    def n_positions(self) -> int:
        """Patch positions of a view, p²."""
        return self.grid * self.grid

    @property
    def atoms_per_token(self) -> float:
        """Mean number of active atoms on a patch token: the truth's own L0."""
        p = self.grid
        border_cells = (4 * p - 4) + 2 + p + 1
        return self.atoms_per_patch + (self.n_outliers + border_cells) / self.n_positions

    @property
    def digest(self) -> str:
        """Hash of the whole specification: the planted backbone's weights."""
        return fingerprint(asdict(self))


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
