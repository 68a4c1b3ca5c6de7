"""The figure of model sizes, checked against the numbers it was given."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from vitscope.errors import ArtifactError
from vitscope.figures.files import save_figure
from vitscope.figures.scaling import NUDGE, ScalingLine, plot_scaling, size_text

NAN = float("nan")
MODELS = [("s", 22_000_000), ("b", 86_000_000), ("l", None)]


def line(kind: str, means: list[float], change: float) -> ScalingLine:
    mean = np.asarray(means)
    value = np.stack([mean, mean - 0.02, mean + 0.03], 1)
    differs = np.where(np.isfinite(mean), change, NAN)
    return ScalingLine(kind, kind, value, np.stack([differs, differs - 0.01, differs + 0.01], 1))


LINES = [line("original", [0.7, 0.8, 0.9], 0.0), line("low", [0.5, NAN, 0.8], -0.1)]


def curves(figure: Figure, axes: int) -> list[np.ndarray]:
    """Points of every line over the models."""
    lines: list[Any] = list(figure.axes[axes].lines)
    return [np.asarray(one.get_xydata()) for one in lines if len(one.get_xdata()) == len(MODELS)]


def test_every_line_is_where_its_numbers_are() -> None:
    figure = plot_scaling(MODELS, LINES, "top-1 accuracy")
    original, low = curves(figure, 0)
    np.testing.assert_allclose(original[:, 1], [0.7, 0.8, 0.9])
    np.testing.assert_allclose(low[:, 1], [0.5, NAN, 0.8])
    np.testing.assert_allclose(low[:, 0] - original[:, 0], NUDGE)
    (change,) = curves(figure, 1)  # the original is the zero line
    np.testing.assert_allclose(change[:, 1], [-0.1, NAN, -0.1])
    bars: Any = figure.axes[0].collections[0]
    ends = [list(segment[:, 1]) for segment in bars.get_segments()]
    np.testing.assert_allclose(ends, [[0.68, 0.73], [0.78, 0.83], [0.88, 0.93]])
    labels = [tick.get_text() for tick in figure.axes[1].get_xticklabels()]
    assert labels == ["s\n22 M", "b\n86 M", "l\nsize unknown"]
    assert figure.axes[0].get_ylabel() == "top-1 accuracy"
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["original", "low"]


def test_without_intervals_or_figures_it_is_drawn_all_the_same() -> None:
    alone = ScalingLine("original", "original", *(np.array([[0.5, NAN, NAN]]) for _ in range(2)))
    plot_scaling([("a", 1)], [alone], "top-1").draw_without_rendering()
    empty = plot_scaling([], [], "top-1")
    assert "no model has been probed" in empty.axes[0].texts[0].get_text()


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (999, "999"),
        (10_880, "11 k"),
        (999_600, "1.0 M"),
        (5_717_416, "5.7 M"),
        (86_567_656, "87 M"),
        (1_136_480_768, "1.1 B"),
    ],
)
def test_sizes_are_written_short(n: int, text: str) -> None:
    assert size_text(n) == text


def test_files_are_whole_and_the_same_each_time(tmp_path: Path) -> None:
    first, again = (
        save_figure(plot_scaling(MODELS, LINES, "top-1"), tmp_path / name, "f") for name in "ab"
    )
    assert [path.name for path in first] == ["f.svg", "f.pdf", "f.png"]
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write"):
        save_figure(plot_scaling(MODELS, LINES, "top-1"), tmp_path / "file", "f")
