"""The figures of attention instability, checked against the numbers they were given."""

from typing import Any

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from tests.report.made_up_run import make_instability

from vitscope.figures.instability import NUDGE, plot_instability, plot_shifts
from vitscope.figures.style import HIGH, LOW
from vitscope.scope.instability_summary import GroupInstability, ReadingInstability

NAN = float("nan")


def texts(figure: Figure) -> str:
    return " ".join(t.get_text() for t in figure.axes[0].texts)


def group(mean: float) -> GroupInstability:
    return GroupInstability(mean, 0.1, mean - 0.3, mean + 0.2, 10, 100, 0, mean, NAN, NAN)


def reading(name: str, out: float, non: float, shift: int = 1) -> ReadingInstability:
    return ReadingInstability(shift, "either", name, 8.0, group(out), group(non), NAN, NAN, NAN)


def bars(figure: Figure, axes: int, colour: str) -> list[np.ndarray]:
    """Both ends of every error bar of a colour."""
    drawn: list[Any] = list(figure.axes[axes].collections)
    found = [c for c in drawn if to_hex(c.get_edgecolor()[0]) == colour]
    return [segment for c in found for segment in c.get_segments()]


def test_instability_places_both_groups_of_every_reading() -> None:
    figure = plot_instability(
        make_instability((reading("query", 5.0, 1.0), reading("key", NAN, 2.0)), diameter=8.0)
    )
    places = {
        to_hex(line.get_color()): list(np.asarray(line.get_xdata()))
        for line in figure.axes[0].lines
        if to_hex(line.get_color()) in (LOW, HIGH) and len(np.asarray(line.get_xdata())) == 2
    }
    assert places[LOW] == [1.0, 2.0]
    assert places[HIGH][0] == 5.0
    assert np.isnan(places[HIGH][1])
    assert "nan" not in texts(figure)
    np.testing.assert_allclose(
        [bar[:, 0] for bar in bars(figure, 0, LOW)], [[0.7, 1.2], [1.7, 2.2]]
    )


def test_shifts_have_a_panel_a_reading_and_a_point_a_shift() -> None:
    rows = [
        reading(name, 4.0 + shift + offset, 1.0 + shift, shift)
        for shift in (1, 2, 5)
        for offset, name in enumerate(("key", "query"))
    ]
    figure = plot_shifts(make_instability(tuple(rows), reading="key"))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["key", "query"]
    for panel, (ax, offset) in enumerate(zip(figure.axes, (0, 1), strict=True)):
        curves = {
            to_hex(line.get_color()): np.asarray(line.get_xydata())
            for line in ax.lines
            if line.get_linestyle() == "-" and len(np.asarray(line.get_xdata())) == 3
        }
        for colour, first, side in ((LOW, 1.0, -1), (HIGH, 4.0 + offset, 1)):
            shifts = np.asarray([1, 2, 5])
            np.testing.assert_allclose(curves[colour][:, 0], shifts + side * NUDGE)
            np.testing.assert_allclose(curves[colour][:, 1], first + shifts)
            ends = np.asarray([bar[:, 1] for bar in bars(figure, panel, colour)])
            np.testing.assert_allclose(
                ends, np.stack([first + shifts - 0.3, first + shifts + 0.2], 1)
            )
        assert ax.get_ylim()[0] == 0
        assert ax.get_ylim()[1] > 9 + offset
    assert [tick.get_text() for tick in figure.axes[-1].get_xticklabels()] == ["1", "2", "5"]


def test_shifts_without_a_number_are_drawn_empty() -> None:
    rows = tuple(reading("query", NAN, NAN, shift) for shift in (1, 2))
    figure = plot_shifts(make_instability(rows))
    assert figure.axes[0].get_ylim() == (0, 1)
    figure.draw_without_rendering()
