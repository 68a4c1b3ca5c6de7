"""The planted attention: every row written down, so that its Earth Mover's Distance is known."""

import numpy as np
from numpy.typing import NDArray

from vitscope.backbones.planted.spec import HeadSpec, PlantedSpec


def locked_cell(grid: int) -> int:
    """Return the flat position that ordinary queries attend to whatever its content: the middle."""
    return (grid // 2) * grid + grid // 2


def attention_rows(
    spec: PlantedSpec, head: HeadSpec, outliers: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return one head's probabilities [P, 1 + P] for the outlier mask [P] of a view; CLS is key 0.

    An ordinary patch attends to itself, to CLS, to the outliers and to the locked cell; an outlier
    attends to CLS and evenly to every patch.
    """
    n = spec.n_positions
    rows = np.zeros((n, 1 + n))
    rows[:, 0] = head.cls
    patches = rows[:, 1:]
    patches[np.arange(n), np.arange(n)] = 1 - head.cls - head.outliers - head.locked
    patches[:, outliers] += head.outliers / outliers.sum()
    patches[:, locked_cell(spec.grid)] += head.locked
    patches[outliers] = (1 - head.cls) / n
    return rows
