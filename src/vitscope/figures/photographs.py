"""Photographs in figures: the view as the backbone saw it, and marks laid over its patches."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import Circle
from matplotlib.patheffects import AbstractPathEffect, withStroke
from numpy.typing import NDArray

from vitscope.figures.style import HIGH

RING_RADIUS = 0.62
"""In patches: the ring goes round the patch, and leaves it to be seen."""


def show_view(ax: Axes, view: NDArray[np.uint8], grid: int, *, grey: bool = False) -> None:
    """Show bytes [3, H, W] on axes counted in patches, 0 to ``grid``, y downwards."""
    picture = np.moveaxis(view, 0, -1)
    if grey:
        luminance = picture @ np.array([0.299, 0.587, 0.114])  # Rec. 601
        picture = np.repeat(luminance[..., None], 3, -1).round().astype(np.uint8)
    ax.imshow(picture, extent=(0, grid, grid, 0), interpolation="antialiased")
    bare_picture(ax)


def lay_over(ax: Axes, colours: NDArray[np.float64]) -> AxesImage:
    """Lay colours [p, p, 4] over the patches of a picture, with hard edges."""
    grid = colours.shape[0]
    return ax.imshow(colours, extent=(0, grid, grid, 0), interpolation="nearest")


def ring_patches(ax: Axes, patches: NDArray[np.bool_], *, width: float = 1.3) -> None:
    """Draw a ring around each patch that is set in ``patches`` [p, p]."""
    for row, column in np.argwhere(patches):
        ring = Circle((column + 0.5, row + 0.5), RING_RADIUS, fill=False, ec=HIGH, lw=width)
        ring.set_path_effects(outlined(width, 1.1))
        ring.set_clip_on(False)  # at the border half a ring would look like a flaw
        ax.add_patch(ring)


def outlined(width: float, margin: float, colour: str = "#ffffff") -> list[AbstractPathEffect]:
    """Return the effect that keeps a line of ``width`` seen on any ground."""
    return [withStroke(linewidth=width + 2 * margin, foreground=colour)]


def bare_picture(ax: Axes) -> None:
    """Leave nothing but the picture."""
    ax.set_axis_off()
    ax.set_aspect("equal")
