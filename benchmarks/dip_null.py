"""Simulate the null of the dip test: the table that ``vitscope.scope.modes`` holds.

    python benchmarks/dip_null.py > table.txt

Uniform samples, ``DRAWS`` of each size; the generator's key is (0, "dip null", size). About ten
minutes on one core, most of them for the largest size.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from vitscope.draws import generator
from vitscope.scope import modes

DRAWS = 100_000
CHUNK = 2_000_000

Values = NDArray[np.float64]


def compiled_dips() -> Callable[[Values], Values]:
    """Return the package's own function, compiled, over the rows of a matrix of spacings."""
    functions: Any = modes
    functions.hull = numba.njit(modes.hull)  # what dip_of_steps calls
    dip_of_steps: Any = numba.njit(modes.dip_of_steps)

    @numba.njit
    def dips(spacings: Values) -> Values:
        n = spacings.shape[1]
        at = (np.arange(n) + 1) / n
        before = np.arange(n) / n
        found = np.empty(spacings.shape[0])
        for row in range(spacings.shape[0]):
            # sums of exponential spacings are ordered uniform values, up to a scale
            found[row] = dip_of_steps(np.cumsum(spacings[row]), before, at)
        return found

    return dips


def simulate(n: int, n_draws: int, dips: Callable[[Values], Values]) -> Values:
    """Return √n·dip of ``n_draws`` uniform samples of ``n`` values."""
    random = generator(0, "dip null", n)
    rows = max(1, CHUNK // n)
    parts = [
        dips(random.standard_exponential((min(rows, n_draws - done), n)))
        for done in range(0, n_draws, rows)
    ]
    return np.sqrt(n) * np.concatenate(parts)


def main() -> None:
    """Print one row of quantiles of √n·dip per sample size, in units of 1e-4."""
    dips = compiled_dips()
    for n in modes.DIP_SIZES.astype(int).tolist():
        quantiles = np.quantile(simulate(n, DRAWS, dips), modes.DIP_LEVELS)
        print(" ".join(f"{10_000 * q:.0f}" for q in quantiles), flush=True)


if __name__ == "__main__":
    main()
