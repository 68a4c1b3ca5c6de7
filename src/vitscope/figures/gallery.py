"""Features on their strongest images, both views side by side, and where mass moves (Figs. 9, 10).

Drawn to a grid in inches rather than by a layout engine: every picture has the same size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from numpy.typing import NDArray

from vitscope.figures.pictures import heat_colours, lay_over, outlined, show_view
from vitscope.figures.style import INK, MUTED, PAGE_IN, SMALL_PT, TEXT_PT, say_empty
from vitscope.scope.gallery import GalleryFeature, GalleryImage
from vitscope.transport.flows import optimal_flow

BETWEEN_VIEWS, BETWEEN_PAIRS, BETWEEN_COLUMNS, BETWEEN_ROWS = 0.03, 0.09, 0.24, 0.1
"""Gaps in inches."""

TITLE_IN, CAPTION_IN = 0.23, 0.17
"""Height of a feature's title, and of the line under each pair."""

SHADE = 0.42
"""Opacity of the shade over what the other view does not show."""

ARROW, ARROW_EDGE = "#ffffff", "#111111"
THINNEST_PT, THICKEST_PT = 0.2, 1.7


SHOWN_SHARE = 0.9
"""Of the mass that moves: streams are drawn from the largest down, until so much is shown."""

FAINTEST_STREAM = 0.01
"""Share of the map below which a stream is not drawn: an anchored feature shows no arrows."""

MOST_STREAMS = 12
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
    n = min(enough, MOST_STREAMS, int((flow.mass >= FAINTEST_STREAM).sum()))
    # the overlap starts at view 2's upper left corner; (row, column) of a cell is its (y, x)
    start, end = (cells[:n, ::-1].astype(np.float64) + 0.5 for cells in (flow.source, flow.target))
    shown = float(flow.mass[:n].sum()) / moving if moving > 0 else 1.0
    return Streams(start, end, flow.mass[:n], flow.emd, shown)


def stream_width(mass: NDArray[np.float64], thinnest: float, thickest: float) -> list[float]:
    """Return a line width for each share of mass: the ink goes with the mass that moves."""
    return [float(w) for w in thinnest + (thickest - thinnest) * np.sqrt(np.clip(mass, 0, 1))]


@dataclass(frozen=True)
class _Sheet:
    """Where things are, in inches from the upper left corner."""

    figure: Figure
    side: float
    width: float
    height: float

    def axes(self, left: float, top: float) -> Axes:
        place = (
            left / self.width,
            1 - (top + self.side) / self.height,
            self.side / self.width,
            self.side / self.height,
        )
        return self.figure.add_axes(place)

    def text(self, left: float, top: float, words: str, size: float, **looks: object) -> None:
        at = left / self.width, 1 - top / self.height
        self.figure.text(*at, words, va="top", fontsize=size, **looks)  # pyright: ignore[reportArgumentType]


def plot_gallery(
    features: Sequence[GalleryFeature],
    cds: NDArray[np.float64],
    *,
    shift: int = 1,
    columns: int = 2,
    images: int = 2,
    colour: str = INK,
) -> Figure:
    """Draw each feature's strongest images in both views, with heatmaps and the flow of mass.

    What both views share is framed, what only one shows is shaded. Arrows lie over the second view
    and lead from where the feature was on that content to where it is now: the optimal plan behind
    the Earth Mover's Distance, its largest streams (:func:`pair_streams` says
    which). Colours run from the weakest active patch to the strongest of the pair.

    Args:
        features: as ``exemplar_views`` returns them, read row by row.
        cds: score of every feature of the dictionary, [m].
        shift: s of the views, in patches.
        columns: features beside one another.
        images: pairs of views of each feature, at most.
        colour: of the scores.
    """
    if not features:
        return _nothing()
    n_rows = -(-len(features) // columns)
    pair_gaps = images * BETWEEN_VIEWS + (images - 1) * BETWEEN_PAIRS
    gaps = columns * pair_gaps + (columns - 1) * BETWEEN_COLUMNS
    side = (PAGE_IN - gaps) / (2 * images * columns)
    row_height = TITLE_IN + side + CAPTION_IN + BETWEEN_ROWS
    height = n_rows * row_height - BETWEEN_ROWS
    sheet = _Sheet(Figure(figsize=(PAGE_IN, height), facecolor="white"), side, PAGE_IN, height)
    block = 2 * images * side + pair_gaps
    for place, shown in enumerate(features):
        row, column = divmod(place, columns)
        left, top = column * (block + BETWEEN_COLUMNS), row * row_height
        title = f"#{shown.feature}"
        sheet.text(left, top + 0.04, title, TEXT_PT, color=INK, fontweight="bold")
        score = f"CDS {cds[shown.feature]:.3f}"
        sheet.text(left + block, top + 0.04, score, TEXT_PT, color=colour, ha="right")
        for rank, image in enumerate(shown.images[:images]):
            at = left + rank * (2 * side + BETWEEN_VIEWS + BETWEEN_PAIRS)
            _draw_pair(sheet, image, shift, at, top + TITLE_IN)
    return sheet.figure


def _draw_pair(sheet: _Sheet, image: GalleryImage, shift: int, left: float, top: float) -> None:
    peak = float(np.nanmax(image.maps, initial=0.0))
    views: list[Axes] = []
    for view in range(2):
        ax = sheet.axes(left + view * (sheet.side + BETWEEN_VIEWS), top)
        show_view(ax, image.views[view], image.maps.shape[-1])
        lay_over(ax, heat_colours(image.maps[view], peak))
        _frame(ax, image.maps.shape[-1], shift, second=view == 1)
        views.append(ax)
    streams = pair_streams(image, shift)
    if streams is not None:
        _draw_streams(views[1], streams)
    words = _caption(image, streams, shift)
    sheet.text(left, top + sheet.side + 0.03, words, SMALL_PT - 0.5, color=MUTED)


def _draw_streams(ax: Axes, streams: Streams) -> None:
    """Draw the arrows of :func:`pair_streams` over view 2, on axes counted in patches."""
    widths = stream_width(streams.mass, THINNEST_PT, THICKEST_PT)
    for start, end, width in zip(streams.start, streams.end, widths, strict=True):
        arrow = FancyArrowPatch(
            (float(start[0]), float(start[1])),
            (float(end[0]), float(end[1])),
            arrowstyle="-|>",
            mutation_scale=2.6 + 2.4 * width,
            lw=width,
            color=ARROW,
            shrinkA=0,
            shrinkB=0,
        )
        arrow.set_path_effects(outlined(width, 0.55, ARROW_EDGE))
        ax.add_patch(arrow)


def _frame(ax: Axes, grid: int, shift: int, *, second: bool) -> None:
    """Frame what both views show and shade the rest, an L along two sides."""
    start = 0 if second else shift
    strip = grid - shift if second else 0
    for corner, width, height in (
        ((0, strip), grid, shift),
        ((strip, start), shift, grid - shift),
    ):
        box = Rectangle(corner, width, height, facecolor="black", alpha=SHADE, lw=0)
        ax.add_patch(box)
    ax.add_patch(Rectangle((start, start), grid - shift, grid - shift, fill=False, ec="w", lw=0.6))
    ax.set_xlim(0, grid)
    ax.set_ylim(grid, 0)


def _caption(image: GalleryImage, streams: Streams | None, shift: int) -> str:
    if streams is not None:
        return f"EMD {streams.emd:.2f} patches"
    if any((one > 0).any() for one in image.on_overlap(shift)):
        return "missed: in one view only"
    return "silent on what both show"


def _nothing() -> Figure:
    figure = Figure(figsize=(PAGE_IN, 1.0), facecolor="white")
    ax = figure.subplots()
    ax.set_axis_off()
    say_empty(ax, "no feature of this group has enough pairs")
    return figure
