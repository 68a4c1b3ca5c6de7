"""The planted backbone: the protocol every backbone keeps, over tokens and attention we know.

Every row of its attention is written down, so that its Earth Mover's Distance is known.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from numpy.typing import NDArray
from torch import Tensor

from vitscope.axes import ImageBatch
from vitscope.backbones.adapter import require_views
from vitscope.backbones.attention import BlockAttention
from vitscope.backbones.backbone import BlockTokens, FinalOutput, Preprocessing, Site
from vitscope.backbones.planted.mixture import (
    PlantedMixture,
    ViewPixels,
    draw_vocabulary,
    mix,
    read_pixels,
)
from vitscope.backbones.planted.spec import (
    Atom,
    HeadSpec,
    PlantedSpec,
    draw_atoms,
    draw_bias,
    list_atoms,
)
from vitscope.draws import generator


@dataclass(frozen=True)
class WrittenAttention(BlockAttention):
    """Probabilities as specified.

    Attributes:
        patches: rows of the patch tokens; CLS is key 0, and its own row, which nothing specifies,
            attends evenly to all.
    """

    patches: Float32[Tensor, "B A P T"]

    @property
    def n_prefix(self) -> int:
        """One CLS token."""
        return 1

    @property
    def n_tokens(self) -> int:
        """CLS and patch tokens, T."""
        return self.patches.shape[-1]

    def rows(self, queries: Int64[Tensor, "Q"]) -> Float32[Tensor, "B A Q T"]:
        """Return the rows asked for."""
        cls = torch.full_like(self.patches[:, :, :1], 1 / self.n_tokens)
        return torch.cat([cls, self.patches], 2)[:, :, queries]


def locked_cell(grid: int) -> int:
    """Return the flat position that ordinary queries attend to whatever its content: the middle."""
    return (grid // 2) * grid + grid // 2


def attention_rows(
    spec: PlantedSpec, head: HeadSpec, outliers: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return one head's probabilities [P, 1 + P] for the outlier mask [P] of a view; CLS is key 0.

    An ordinary patch attends to itself, to CLS, to the outliers and to the locked cell; an outlier
    attends to CLS and evenly to every patch.
    """
    n = spec.n_positions
    rows = np.zeros((n, 1 + n))
    rows[:, 0] = head.cls
    patches = rows[:, 1:]
    patches[np.arange(n), np.arange(n)] = 1 - head.cls - head.outliers - head.locked
    patches[:, outliers] += head.outliers / outliers.sum()
    patches[:, locked_cell(spec.grid)] += head.locked
    patches[outliers] = (1 - head.cls) / n
    return rows


@dataclass(frozen=True)
class PlantedBackbone:
    """A stand-in for a vision transformer with known features, scopes and attention.

    Attributes:
        spec: the numbers that define it.
        atoms: the true dictionary, unit rows, float32 [n_atoms, d].
        bias: carried by every token, float32 [d].
        truth: what is true of each atom.
    """

    spec: PlantedSpec = field(default_factory=PlantedSpec)
    atoms: Float32[Tensor, "n_atoms d"] = field(init=False, repr=False)
    bias: Float32[Tensor, "d"] = field(init=False, repr=False)
    truth: tuple[Atom, ...] = field(init=False, repr=False)
    _vocabulary: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "atoms", draw_atoms(self.spec))
        object.__setattr__(self, "bias", draw_bias(self.spec))
        object.__setattr__(self, "truth", list_atoms(self.spec))
        object.__setattr__(self, "_vocabulary", draw_vocabulary(self.spec))

    @property
    def site(self) -> Site:
        """Where this backbone is read."""
        spec = self.spec
        return Site("planted", spec.digest, 1, spec.width, spec.grid, spec.patch)

    @property
    def preprocessing(self) -> Preprocessing:
        """Bytes as they are."""
        return Preprocessing(crop_share=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def mixture(self, images: ImageBatch) -> PlantedMixture:
        """Return the true codes and outlier positions of a batch of views."""
        return mix(self.spec, self._vocabulary, self._read(images))

    def tokens(self, images: ImageBatch) -> BlockTokens:
        """Return bias + codes·atoms + noise; CLS is the mean of the patch tokens."""
        seen = self._read(images)
        codes = torch.from_numpy(mix(self.spec, self._vocabulary, seen).codes)
        shape = (self.spec.n_positions, self.spec.width)
        noise = [
            generator(self.spec.seed, "noise", int(key)).standard_normal(shape, np.float32)
            for key in seen.view_hash
        ]
        patch = self.bias + codes @ self.atoms
        patch += self.spec.noise * torch.from_numpy(np.stack(noise))
        return BlockTokens(patch=patch, prefix=patch.mean(1, keepdim=True))

    def attention(self, images: ImageBatch) -> WrittenAttention:
        """Return the specified probabilities of every head."""
        outliers = self.mixture(images).outliers
        rows = [
            np.stack([attention_rows(self.spec, head, view) for head in self.spec.heads])
            for view in outliers
        ]
        return WrittenAttention(torch.from_numpy(np.stack(rows)).float())

    def resume(self, tokens: BlockTokens) -> FinalOutput:
        """There are no later blocks: patch tokens as they are, pooled by their mean."""
        return FinalOutput(patch=tokens.patch, pooled=tokens.patch.mean(1))

    def outlier_mask(self, images: ImageBatch) -> Bool[Tensor, "B P"]:
        """Return which patch tokens truly are outliers."""
        return torch.from_numpy(self.mixture(images).outliers)

    def _read(self, images: ImageBatch) -> ViewPixels:
        require_views(images, self.site)
        return read_pixels(images.cpu().numpy(), self.spec.grid, self.spec.patch)
