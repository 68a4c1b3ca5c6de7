"""Shifted Context Crop: two views of one image whose overlap is identical pixel for pixel."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from vitscope.backbones.backbone import Preprocessing, Site
from vitscope.errors import ConfigError
from vitscope.images.loading import to_square
from vitscope.scope.settings import InstabilitySettings


@dataclass(frozen=True)
class Overlap:
    """The patches that two views shifted by s share (protocol, section 4).

    Attributes:
        grid: p, patches per side of a view.
        shift: s, in patches.
    """

    grid: int
    shift: int

    def __post_init__(self) -> None:
        if not 1 <= self.shift <= self.grid - 2:
            raise ConfigError(
                f"scope.shift = {self.shift} leaves no overlap of at least 2×2 patches on a "
                f"{self.grid}×{self.grid} grid; use 1 to {self.grid - 2}"
            )

    @property
    def side(self) -> int:
        """q = p - s, patches per side of the overlap."""
        return self.grid - self.shift

    @property
    def n_cells(self) -> int:
        """Patches of the overlap, q²."""
        return self.side * self.side

    @property
    def diameter(self) -> float:
        """D_grid = √2·(p - s - 1): the largest distance between two of its cells, in patches."""
        return float(np.sqrt(2.0) * (self.side - 1))

    @property
    def first(self) -> NDArray[np.int64]:
        """Flat patch positions [q²] of the overlap in view 1: rows and columns s..p-1."""
        return self._positions(self.shift)

    @property
    def second(self) -> NDArray[np.int64]:
        """Flat patch positions [q²] of the overlap in view 2: rows and columns 0..p-s-1."""
        return self._positions(0)

    def _positions(self, start: int) -> NDArray[np.int64]:
        along = np.arange(start, start + self.side)
        return (along[:, None] * self.grid + along[None, :]).ravel()

    def places(self, view: int) -> NDArray[np.int64]:
        """Return row and column of every patch of view 0 or 1 in the image, [p², 2].

        View 2 lies s patches further down and to the right.
        """
        return np.stack(np.divmod(np.arange(self.grid**2), self.grid), -1) + view * self.shift


def shifted_views(
    image: Image, site: Site, shift: int, *, stretch: bool = False
) -> UInt8[Tensor, "2 3 H W"]:
    """Cut the two views of ``image``: bytes [2, 3, p·n, p·n], at (0, 0) and at (s·n, s·n).

    The image is resized once to (p + s)·n pixels a side; both views are crops of that one array,
    so that nothing can touch their common pixels differently.
    """
    whole = to_square(image, site.resolution + shift * site.patch, stretch=stretch)
    side, offset = site.resolution, shift * site.patch
    return torch.stack([whole[:, :side, :side], whole[:, offset:, offset:]])


def plain_view(
    image: Image, site: Site, preprocessing: Preprocessing, *, stretch: bool = False
) -> UInt8[Tensor, "3 H W"]:
    """Return the unshifted image as the backbone takes it: bytes [3, p·n, p·n]."""
    return to_square(image, site.resolution, crop_share=preprocessing.crop_share, stretch=stretch)


def compared_overlaps(grid: int, own: int, settings: InstabilitySettings) -> tuple[Overlap, ...]:
    """Return what two views share at every shift compared, ascending.

    Args:
        grid: p, patches per side.
        own: ``scope.shift``, which is always among them.
        settings: names the others.

    Raises:
        ConfigError: a shift leaves no overlap of at least 2x2 patches.
    """
    widest = grid - 2
    too_wide = [shift for shift in settings.shifts if shift > widest]
    if too_wide:
        raise ConfigError(
            f"instability.shifts: {too_wide[0]} leaves no overlap of at least 2×2 patches on a "
            f"{grid}×{grid} grid; use 1 to {widest}"
        )
    return tuple(Overlap(grid, shift) for shift in sorted({own, *settings.shifts}))
