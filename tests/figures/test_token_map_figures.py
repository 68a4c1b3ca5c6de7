"""Maps of single images: every outlier is ringed, every token has its colour, gaps stay clear."""

import numpy as np
import pytest
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure

from vitscope.figures.token_maps import OPACITY, plot_awcds_maps, plot_norm_maps
from vitscope.scope.gallery import TokenMaps

NAN = float("nan")
GRID = 5


def maps(n: int = 3) -> list[TokenMaps]:
    random = np.random.default_rng(0)
    found: list[TokenMaps] = []
    for image in range(n):
        norms, awcds = random.uniform(10, 20, (GRID, GRID)), random.random((GRID, GRID))
        norms[1, image] = 90.0
        awcds[0, 0] = NAN
        view = random.integers(0, 256, (3, 40, 40), dtype=np.uint8)
        found.append(TokenMaps(f"{image}.jpg", view, norms, awcds))
    return found


def rings(figure: Figure) -> list[list[tuple[float, float]]]:
    """Return the middles of what is ringed on each picture, (x, y) in patches."""
    drawn = [
        [one for one in ax.collections if isinstance(one, PatchCollection)]
        for ax in figure.axes[:-1]
    ]
    boxes = [[ring.get_extents() for one in ax for ring in one.get_paths()] for ax in drawn]
    return [
        [(round((box.x0 + box.x1) / 2, 6), round((box.y0 + box.y1) / 2, 6)) for box in ax]
        for ax in boxes
    ]


def words(figure: Figure) -> str:
    return " ".join(t.get_text() for legend in figure.legends for t in legend.get_texts())


@pytest.mark.parametrize("plot", [plot_norm_maps, plot_awcds_maps])
def test_outliers_are_ringed_in_the_photograph_and_in_the_map(plot) -> None:
    figure = plot(maps(), 50.0)
    assert rings(figure) == [[(image + 0.5, 1.5)] for image in range(3)] * 2
    assert "τ = 50" in words(figure)


@pytest.mark.parametrize("plot", [plot_norm_maps, plot_awcds_maps])
def test_without_a_threshold_nothing_is_ringed(plot) -> None:
    figure = plot(maps(), NAN)
    assert not any(rings(figure)) and not figure.legends


def test_a_token_without_a_score_lets_the_photograph_through() -> None:
    figure = plot_awcds_maps(maps(1))
    overlay = figure.axes[1].images[1].get_array()
    assert overlay is not None
    assert overlay[0, 0, 3] == 0
    assert overlay[1, 0, 3] == pytest.approx(OPACITY)


def test_one_scale_serves_all_images_and_reaches_the_extremes() -> None:
    shown = maps()
    bar = plot_norm_maps(shown, NAN).axes[-1]
    every = np.concatenate([one.norms.ravel() for one in shown])
    np.testing.assert_allclose(bar.get_ylim(), (every.min(), every.max()))
    top = plot_awcds_maps(shown).axes[-1].get_ylim()
    np.testing.assert_allclose(top, (0, max(np.nanmax(one.awcds) for one in shown)))


@pytest.mark.parametrize("plot", [plot_norm_maps, plot_awcds_maps])
def test_no_image_is_said(plot) -> None:
    assert "no images" in plot([], NAN).axes[0].texts[0].get_text()
