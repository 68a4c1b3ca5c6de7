"""Which streams of an optimal plan a picture shows, and how thick."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitscope.emd.flows import optimal_flow
from vitscope.scope.exemplar_views import GalleryImage

SHOWN_SHARE = 0.9
"""Of the mass that moves: streams are drawn from the largest down, until so much is shown."""

FAINTEST = 0.01
"""Share of the map below which a stream is not drawn: an anchored feature shows no arrows."""

MOST = 12
"""Streams drawn of one pair: more would hide the picture."""


@dataclass(frozen=True)
class Streams:
    """Arrows over view 2, from where mass lay on the shared content to where it lies now.

    Attributes:
        start: (x, y) of each arrow's tail, in patches of view 2 from its upper left corner, [n, 2].
        end: of its head, [n, 2].
        mass: share of the map that it carries, descending, [n].
        emd: of the whole plan, in patches.
        shown_share: of the mass that moves; 1 where none does.
    """

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    mass: NDArray[np.float64]
    emd: float
    shown_share: float


def pair_streams(image: GalleryImage, shift: int) -> Streams | None:
    """Return the arrows of a pair of views; None where a map is empty on what both show."""
    flow = optimal_flow(*image.on_overlap(shift))
    if flow is None:
        return None
    running, moving = np.cumsum(flow.mass), float(flow.mass.sum())
    # by a hair less: a sum of shares may end just below the share it stands for
    enough = int(np.searchsorted(running, SHOWN_SHARE * moving * (1 - 1e-9))) + 1
    n = min(enough, MOST, int((flow.mass >= FAINTEST).sum()))
    # the overlap starts at view 2's upper left corner; (row, column) of a cell is its (y, x)
    start, end = (cells[:n, ::-1].astype(np.float64) + 0.5 for cells in (flow.source, flow.target))
    shown = float(flow.mass[:n].sum()) / moving if moving > 0 else 1.0
    return Streams(start, end, flow.mass[:n], flow.emd, shown)


def stream_width(mass: NDArray[np.float64], thinnest: float, thickest: float) -> list[float]:
    """Return a line width for each share of mass: the ink goes with the mass that moves."""
    return [float(w) for w in thinnest + (thickest - thinnest) * np.sqrt(np.clip(mass, 0, 1))]
