"""Pairs of maps: awkward ones, and ones like features and attention; and the slow exact answer."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import ot
from numpy.typing import NDArray

Map = NDArray[np.float64]
Pair = tuple[Map, Map]
Shape = tuple[int, int]


def whole_map_emd(a: Map, b: Map) -> float:
    """POT on the whole grid: nothing cancelled, nothing left out."""
    cells = np.asarray(list(product(*map(range, a.shape))), dtype=np.float64)
    cost = ot.dist(cells, cells, metric="euclidean")
    solved: Any = ot.emd2(a.ravel() / a.sum(), b.ravel() / b.sum(), cost, numItermax=10**7)
    return float(solved)


def dense(random: np.random.Generator, shape: Shape) -> Pair:
    return random.random(shape), random.random(shape)


def sparse(random: np.random.Generator, shape: Shape) -> Pair:
    a, b = (random.random(shape) * (random.random(shape) < 0.2) for _ in range(2))
    return _never_empty(a), _never_empty(b)


def ties(random: np.random.Generator, shape: Shape) -> Pair:
    a, b = (random.integers(0, 3, shape).astype(np.float64) for _ in range(2))
    return _never_empty(a), _never_empty(b)


def checkerboards(random: np.random.Generator, shape: Shape) -> Pair:
    black = (np.indices(shape).sum(0) % 2).astype(np.float64)
    return black, 1 - black


def tiny_masses(random: np.random.Generator, shape: Shape) -> Pair:
    a, b = (np.where(random.random(shape) < 0.5, 1e-12, 1.0) for _ in range(2))
    return a * random.random(shape), b


def almost_alike(random: np.random.Generator, shape: Shape) -> Pair:
    a = random.random(shape)
    return a, a + 1e-12 * random.random(shape)


def one_cell(random: np.random.Generator, shape: Shape) -> Pair:
    a = np.zeros(shape)
    a.flat[random.integers(a.size)] = random.random() + 0.1
    return a, sparse(random, shape)[1]


def proportional(random: np.random.Generator, shape: Shape) -> Pair:
    a = random.random(shape)
    return a, 7.3 * a


def permuted(random: np.random.Generator, shape: Shape) -> Pair:
    a = sparse(random, shape)[0]
    return a, random.permutation(a.ravel()).reshape(shape)


def correlated(random: np.random.Generator, shape: Shape) -> Pair:
    a = random.exponential(size=shape)
    return a, 0.9 * a + 0.1 * random.exponential(size=shape)


def halves(random: np.random.Generator, shape: Shape) -> Pair:
    left = np.arange(shape[1]) < (shape[1] + 1) // 2
    a, b = random.random(shape) * left, random.random(shape) * ~left
    return _never_empty(a), _never_empty(b)


KINDS: tuple[Callable[[np.random.Generator, Shape], Pair], ...] = (
    dense,
    sparse,
    ties,
    checkerboards,
    tiny_masses,
    almost_alike,
    one_cell,
    proportional,
    permuted,
    correlated,
    halves,
)

SHAPES: tuple[tuple[Shape, int], ...] = (
    ((1, 2), 12),
    ((1, 7), 14),
    ((2, 2), 14),
    ((3, 5), 30),
    ((6, 4), 36),
    ((7, 7), 40),
    ((9, 9), 20),
    ((13, 13), 12),
    ((16, 16), 4),
)
"""Grids, and how many pairs of each kind: about 2,000 pairs in all."""


MANY_SHAPES: tuple[tuple[Shape, int], ...] = (
    ((1, 2), 700),
    ((1, 9), 700),
    ((2, 2), 700),
    ((3, 5), 800),
    ((6, 4), 700),
    ((7, 7), 500),
    ((9, 9), 350),
    ((13, 13), 80),
    ((15, 15), 40),
    ((1, 37), 40),
    ((23, 23), 6),
    ((37, 37), 1),
)
"""The same, for about 50,000 pairs: minutes of POT."""


def features(random: np.random.Generator, shape: Shape) -> Pair:
    """Maps of a dictionary feature in two views: a few cells in clusters.

    Sizes are log-normal, median 8, sigma 0.9, 1 to 60 cells. Half of the pairs nearly coincide
    (12 % of the cells dropped, as many added, values within 20 %), 30 % share half of the cells,
    the rest nothing in particular.
    """
    cells = clusters(random, shape, _feature_size(random, shape))
    a, b = np.zeros((2, shape[0] * shape[1]))
    a[cells] = random.exponential(size=cells.size) + 0.05
    kind = random.random()
    if kind < 0.5:
        kept = cells[random.random(cells.size) >= 0.12]
        b[random.integers(b.size, size=random.binomial(cells.size, 0.12))] = (
            random.exponential() + 0.05
        )
        kept = kept if kept.size else cells[:1]
        b[kept] = a[kept] * random.uniform(0.8, 1.2, kept.size)
    else:
        if kind < 0.8:
            half = cells[: (cells.size + 1) // 2]
            other = clusters(random, shape, max(1, cells.size - half.size))
        else:
            half = cells[:0]
            other = clusters(random, shape, _feature_size(random, shape))
        b[other] = random.exponential(size=other.size) + 0.05
        b[half] = a[half] * random.uniform(0.8, 1.2, half.size)
    return a.reshape(shape), b.reshape(shape)


def clusters(random: np.random.Generator, shape: Shape, n: int) -> NDArray[np.int64]:
    """Return n cells in one to three clusters, grown from a seed each, neighbour by neighbour."""
    height, width = shape
    n_seeds = 1 if n < 4 else int(random.integers(1, 4))
    cells = [int(cell) for cell in random.choice(height * width, n_seeds, replace=False)]
    steps = ((0, 1), (1, 0), (0, -1), (-1, 0))
    while len(cells) < n:
        row, column = divmod(cells[random.integers(len(cells))], width)
        down, right = steps[random.integers(4)]
        row, column = row + down, column + right
        inside = 0 <= row < height and 0 <= column < width
        if inside and row * width + column not in cells:
            cells.append(row * width + column)
    return np.asarray(cells, dtype=np.int64)


def attention(random: np.random.Generator, shape: Shape, alike: float = 0.97) -> Pair:
    """Maps of attention in two views: mass everywhere, logits of scale 2 that correlate."""
    logits, noise = random.standard_normal((2, *shape))
    return np.exp(2 * logits), np.exp(2 * (alike * logits + np.sqrt(1 - alike**2) * noise))


def _feature_size(random: np.random.Generator, shape: Shape) -> int:
    size = np.rint(random.lognormal(np.log(8), 0.9))
    return int(np.clip(size, 1, min(60, shape[0] * shape[1])))


def _never_empty(a: Map) -> Map:
    if not a.any():
        a.flat[a.size // 2] = 1.0
    return a
