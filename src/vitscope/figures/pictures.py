"""Photographs and what is laid over them: activation as colours, rings; as axes, and as bytes."""

import base64
import io

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.image import AxesImage
from matplotlib.patches import Circle
from matplotlib.patheffects import AbstractPathEffect, withStroke
from numpy.typing import NDArray
from PIL import Image

from vitscope.figures.style import HIGH

HEAT_COLOURS = "inferno"
"""Perceptually uniform, and told apart from photographs by its yellow-to-purple range."""

DARKEST = 0.3
"""Where on the colour map the weakest activation starts: its black end would look like shade."""

FAINTEST, STRONGEST = 0.42, 0.85
"""Opacity of the weakest and of the strongest active patch."""

RING_RADIUS = 0.62
"""In patches: the ring goes round the patch, and leaves it to be seen."""

VIEW_SIDE = 176
"""Pixels a side of an embedded view: sharp enough at about 150 on screen, small in bytes."""

JPEG_QUALITY = 82


def heat_colours(activation: NDArray[np.float64], peak: float) -> NDArray[np.float64]:
    """Return red, green, blue and opacity, 0 to 1, of each patch [p, p, 4]; silent ones are clear.

    Args:
        activation: of one view [p, p]; negative and undefined entries count as silent.
        peak: the activation that takes the strongest colour, common to both views of a pair.
    """
    active = np.isfinite(activation) & (activation > 0)
    share = np.where(active, activation, 0.0) / peak if peak > 0 else np.zeros(activation.shape)
    share = np.clip(share, 0.0, 1.0)
    colour = np.asarray(colormaps[HEAT_COLOURS](DARKEST + (1 - DARKEST) * share))
    colour[..., 3] = np.where(active, FAINTEST + (STRONGEST - FAINTEST) * share, 0.0)
    colour[~active, :3] = 0.0
    return colour


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
    rings = PatchCollection(
        [Circle((column + 0.5, row + 0.5), RING_RADIUS) for row, column in np.argwhere(patches)],
        facecolor="none", edgecolor=HIGH, linewidth=width,
    )  # fmt: skip
    rings.set_path_effects(outlined(width, 1.1))
    rings.set_clip_on(False)  # at the border half a ring would look like a flaw
    rings.set_in_layout(False)  # pictures keep their places, whatever is ringed
    ax.add_collection(rings, autolim=False)


def outlined(width: float, margin: float, colour: str = "#ffffff") -> list[AbstractPathEffect]:
    """Return the effect that keeps a line of ``width`` seen on any ground."""
    return [withStroke(linewidth=width + 2 * margin, foreground=colour)]


def bare_picture(ax: Axes) -> None:
    """Leave nothing but the picture."""
    ax.set_axis_off()
    ax.set_aspect("equal")


def view_jpeg_bytes(view: NDArray[np.uint8], side: int = VIEW_SIDE) -> bytes:
    """Return bytes [3, H, W] as a JPEG, at most ``side`` pixels a side."""
    image = Image.fromarray(np.ascontiguousarray(np.moveaxis(view, 0, -1)))
    if max(image.size) > side:
        image = image.resize((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


def heat_png_bytes(activation: NDArray[np.float64], peak: float) -> bytes:
    """Return a map [p, p] as a PNG of p × p pixels, transparent where it is silent.

    Args:
        activation: of one view; negative and undefined entries count as silent.
        peak: the activation that takes the strongest colour, common to both views of a pair.
    """
    colour = heat_colours(activation, peak)
    buffer = io.BytesIO()
    Image.fromarray(np.round(255 * colour).astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def data_uri(kind: str, data: bytes) -> str:
    """Return an image as an address that holds it; ``kind`` is ``jpeg`` or ``png``."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
