"""Galleries: arrows lead from where a feature was to where it is; pairs say their distance."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from vitscope.figures.gallery import (
    FAINTEST_STREAM,
    MOST_STREAMS,
    SHOWN_SHARE,
    pair_streams,
    plot_gallery,
    stream_width,
)
from vitscope.figures.pictures import heat_colours
from vitscope.scope.gallery import GalleryFeature, GalleryImage
from vitscope.transport.emd import emd

GRID, PATCH = 7, 4
Cell = tuple[int, int]


def pair(first: Sequence[Cell], second: Sequence[Cell]) -> GalleryImage:
    """A pair with one unit of activation on cells of each view's own grid."""
    maps = np.zeros((2, GRID, GRID))
    for view, cells in enumerate((first, second)):
        for cell in cells:
            maps[(view, *cell)] += 1
    views = np.full((2, 3, GRID * PATCH, GRID * PATCH), 128, np.uint8)
    return GalleryImage("a.jpg", views, maps, 0.0)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def arrows(ax: Axes) -> list[FancyArrowPatch]:
    return [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]


def test_an_arrow_leads_over_view_2_from_the_old_cell_to_the_new() -> None:
    # view 1 shows the overlap from patch 2 on: its cell (4, 5) is the overlap's (2, 3)
    shown = GalleryFeature(1, (pair([(4, 5)], [(4, 1)]),))
    figure = plot_gallery([shown], np.array([0.0, 0.25]), shift=2)
    first, second = figure.axes
    assert not arrows(first)
    (arrow,) = arrows(second)
    ends = arrow._posA_posB  # type: ignore[attr-defined]
    np.testing.assert_allclose(ends, [(3.5, 2.5), (1.5, 4.5)])
    assert texts(figure) == ["#1", "CDS 0.250", f"EMD {np.hypot(2, 2):.2f} patches"]


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_the_frame_is_what_both_views_show_and_the_rest_is_shaded(shift: int) -> None:
    figure = plot_gallery(
        [GalleryFeature(0, (pair([(5, 5)], [(5, 5)]),))], np.array([0.1]), shift=shift
    )
    for view, ax in enumerate(figure.axes):
        boxes = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
        (frame,) = [box for box in boxes if not box.get_fill()]
        shades = [box for box in boxes if box.get_fill()]
        start = shift if view == 0 else 0
        assert frame.get_bbox().bounds == (start, start, GRID - shift, GRID - shift)
        area = sum(box.get_width() * box.get_height() for box in shades)
        assert area == GRID**2 - (GRID - shift) ** 2
        # bounds are (left, top, width, height): no shade reaches into the frame
        for box in shades:
            left, top, width, height = box.get_bbox().bounds
            inside = (
                left < start + GRID - shift
                and left + width > start
                and top < start + GRID - shift
                and top + height > start
            )
            assert not inside


def test_pairs_without_a_distance_say_why() -> None:
    features = [
        GalleryFeature(0, (pair([(3, 3)], []), pair([(0, 3)], [(6, 2)]))),
        GalleryFeature(1, ()),
    ]
    figure = plot_gallery(features, np.array([0.5, np.nan]))
    said = texts(figure)
    assert "missed: in one view only" in said and "silent on what both show" in said
    assert not any(arrows(ax) for ax in figure.axes)
    assert len(figure.axes) == 4  # two pairs of the first feature, none of the second
    assert "no feature of this group" in plot_gallery([], np.zeros(0)).axes[0].texts[0].get_text()


def test_every_picture_is_a_square_of_one_size_within_the_sheet() -> None:
    features = [GalleryFeature(j, (pair([(3, 3)], [(2, 2)]),) * 3) for j in range(5)]
    figure = plot_gallery(features, np.zeros(5), columns=2, images=3)
    width, height = figure.get_size_inches()
    assert len(figure.axes) == 5 * 3 * 2
    sides: set[tuple[float, float]] = set()
    for ax in figure.axes:
        left, bottom, w, h = ax.get_position().bounds
        sides.add((round(w * width, 6), round(h * height, 6)))
        assert left >= -1e-9 and left + w <= 1 + 1e-9
        assert bottom >= -1e-9 and bottom + h <= 1 + 1e-9
    ((one, other),) = sides
    assert one == other


masses = arrays.arrays(np.float64, (2, 6, 6), elements=st.sampled_from([0.0, 0.0, 0.1, 1.0, 3.0]))


@settings(deadline=None)  # the first call compiles
@given(masses, st.integers(1, 3))
def test_streams_show_most_of_what_moves_and_know_its_distance(
    maps: np.ndarray, shift: int
) -> None:
    image = GalleryImage("a", np.zeros((2, 3, 6, 6), np.uint8), maps, 0.0)
    one, other = image.on_overlap(shift)
    streams = pair_streams(image, shift)
    if not (one.any() and other.any()):
        assert streams is None
        return
    assert streams is not None
    assert streams.emd == pytest.approx(emd(one, other), abs=1e-9)
    n = len(streams.mass)
    assert (
        n <= MOST_STREAMS
        and (np.diff(streams.mass) <= 0).all()
        and (streams.mass >= FAINTEST_STREAM).all()
    )
    if n:
        moving = streams.mass.sum() / streams.shown_share
        assert streams.mass[:-1].sum() < SHOWN_SHARE * moving  # not one more than is asked for
    elif streams.emd > 0:
        assert streams.shown_share == 0
    inside = one.shape[0]
    for cells, map_ in ((streams.start, one), (streams.end, other)):
        assert ((cells > 0) & (cells < inside)).all()
        for x, y in cells:
            assert map_[int(y), int(x)] > 0


def test_a_pair_that_stays_has_no_stream_and_a_thicker_stream_carries_more() -> None:
    stays = pair_streams(pair([(3, 3), (4, 2)], [(2, 2), (3, 1)]), 1)
    assert stays is not None and stays.emd == 0 and len(stays.mass) == 0 and stays.shown_share == 1
    widths = stream_width(np.array([1.0, 0.25, 0.0]), 0.5, 2.5)
    assert widths == [2.5, 1.5, 0.5]


def test_heat_is_clear_where_silent_and_strongest_at_the_peak() -> None:
    colours = heat_colours(np.array([[0.0, 1.0], [2.0, np.nan]]), 2.0)
    assert (colours[..., 3] > 0).tolist() == [[False, True], [True, False]]
    assert colours[1, 0, 3] > colours[0, 1, 3]
