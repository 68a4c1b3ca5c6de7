"""Pairs of maps that are awkward for an Earth Mover's Distance, and the slow exact answer."""

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


def _never_empty(a: Map) -> Map:
    if not a.any():
        a.flat[a.size // 2] = 1.0
    return a
