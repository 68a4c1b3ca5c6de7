"""Simulate the null of the dip test: the table that ``vitscope.scope.dip_null`` holds.

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
from vitscope.scope import dip

DRAWS = 100_000
SIZES = (4, 5, 6, 7, 8, 9, 10, 15, 20, 30, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999,
          0.9995, 0.9999)  # fmt: skip
CHUNK = 2_000_000

Values = NDArray[np.float64]


def compiled_dips() -> Callable[[Values], Values]:
    """Return the package's own function, compiled, over the rows of a matrix of spacings."""
    functions: Any = dip
    functions.hull = numba.njit(dip.hull)  # what dip_of_steps calls
    dip_of_steps: Any = numba.njit(dip.dip_of_steps)

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
    """Print one row of quantiles of √n·dip per sample size."""
    dips = compiled_dips()
    for n in SIZES:
        quantiles = np.quantile(simulate(n, DRAWS, dips), LEVELS)
        print(f"    {n}: ({', '.join(f'{q:.4f}' for q in quantiles)}),", flush=True)


if __name__ == "__main__":
    main()
