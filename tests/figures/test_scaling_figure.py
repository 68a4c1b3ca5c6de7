"""The figure of model sizes, checked against the numbers it was given."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from vitscope.errors import ArtifactError
from vitscope.figures.files import save_figure
from vitscope.figures.scaling import (
    MODEL_NUDGE,
    Measurement,
    ScaledModel,
    Scaling,
    plot_scaling,
    size_text,
)
from vitscope.intervals import MeanInterval
from vitscope.probes.results import TaskResult

NAN = float("nan")
MODELS = [("s", 22_000_000), ("b", 86_000_000), ("l", None)]
TOKENS = {"original": ([0.7, 0.8, 0.9], 0.0), "low": ([0.5, NAN, 0.8], -0.1)}


def model(name: str, size: int | None, tokens: dict[str, tuple[float, float]]) -> ScaledModel:
    """A model whose kinds of tokens came to (mean, change), with intervals about both."""
    measured = {
        kind: Measurement(
            MeanInterval(mean, mean - 0.02, mean + 0.03),
            MeanInterval(change, change - 0.01, change + 0.01),
            3, 0.1, "",
        )
        for kind, (mean, change) in tokens.items()
    }  # fmt: skip
    task = TaskResult("classification", "top1", True, 24, 20, ())
    return ScaledModel(Path(name), name, size, 1, task, measured)


def family() -> Scaling:
    """Three models; one has no low-CDS features."""
    models = [
        model(
            name,
            size,
            {kind: (m[i], change) for kind, (m, change) in TOKENS.items() if np.isfinite(m[i])},
        )
        for i, (name, size) in enumerate(MODELS)
    ]
    return Scaling(tuple(models), ())


def curves(figure: Figure, axes: int) -> list[np.ndarray]:
    """Points of every line over the models."""
    lines: list[Any] = list(figure.axes[axes].lines)
    return [np.asarray(one.get_xydata()) for one in lines if len(one.get_xdata()) == len(MODELS)]


def test_every_line_is_where_its_numbers_are() -> None:
    figure = plot_scaling(family())
    original, low = curves(figure, 0)
    np.testing.assert_allclose(original[:, 1], [0.7, 0.8, 0.9])
    np.testing.assert_allclose(low[:, 1], [0.5, NAN, 0.8])
    np.testing.assert_allclose(low[:, 0] - original[:, 0], MODEL_NUDGE)
    (change,) = curves(figure, 1)  # the original is the zero line
    np.testing.assert_allclose(change[:, 1], [-0.1, NAN, -0.1])
    bars: Any = figure.axes[0].collections[0]
    ends = [list(segment[:, 1]) for segment in bars.get_segments()]
    np.testing.assert_allclose(ends, [[0.68, 0.73], [0.78, 0.83], [0.88, 0.93]])
    labels = [tick.get_text() for tick in figure.axes[1].get_xticklabels()]
    assert labels == ["s\n22 M", "b\n86 M", "l\nsize unknown"]
    assert figure.axes[0].get_ylabel() == "top-1 accuracy, classification"
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["original", "low-CDS removed"]


def test_without_intervals_or_figures_it_is_drawn_all_the_same() -> None:
    one = Measurement(MeanInterval(0.5), MeanInterval(0.0), 0, 0.0, "")
    alone = replace(model("a", 1, {}), tokens={"original": one})
    plot_scaling(Scaling((alone,), ())).draw_without_rendering()
    empty = plot_scaling(Scaling((), ()))
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
    first, again = (save_figure(plot_scaling(family()), tmp_path / name, "f") for name in "ab")
    assert [path.name for path in first] == ["f.svg", "f.pdf", "f.png"]
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write"):
        save_figure(plot_scaling(family()), tmp_path / "file", "f")
