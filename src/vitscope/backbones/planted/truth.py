"""What a correct pipeline must find on a planted backbone, without running the pipeline.

Everything here follows from the specification: sums over where a few cells may fall, and, where no
sum is at hand, independent draws solved by POT on whole maps (nothing cancelled, nothing batched).
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import ot
from numpy.typing import NDArray
from scipy.stats import hypergeom

from vitscope.backbones.planted.mixture import border_cells
from vitscope.backbones.planted.planted import attention_rows
from vitscope.backbones.planted.spec import Atom, Kind, PlantedSpec

N_PLACEMENTS = 400
"""Draws per pair of support sizes: a standard error of about 0.003 of D_grid."""

N_ATTENTION_DRAWS = 96
N_ATTENTION_TOKENS = 12

Map = NDArray[np.float64]


@dataclass(frozen=True)
class ExpectedCds:
    """Expected score of one atom over exemplar pairs, per reading of a miss.

    Attributes:
        max: a miss counts D_grid.
        drop: a miss counts nothing; NaN where every pair is missed.
        zero: a miss counts 0.
        missed: expected share of misses among pairs with mass in at least one view.
    """

    max: float
    drop: float
    zero: float
    missed: float


def expected_cds(spec: PlantedSpec, atom: Atom, shift: int) -> ExpectedCds:
    """Return the closed form of ``atom`` for views ``shift`` patches apart."""
    if atom.kind is Kind.LOCAL:
        return ExpectedCds(0.0, 0.0, 0.0, 0.0)  # it moves with its content
    if atom.kind is Kind.GLOBAL:
        assert atom.support is not None
        return _relocating(spec.grid, shift, atom.support)
    assert atom.border is not None
    first, second = np.zeros((2, spec.grid, spec.grid))
    first.flat[border_cells(atom.border, spec.grid)] = 1.0
    second.flat[border_cells(atom.border, spec.grid)] = 1.0
    side = spec.grid - shift
    return _fixed(first[shift:, shift:], second[:side, :side])


def mean_distance(side: int) -> float:
    """Return the mean distance of two independent uniform cells of a side×side grid, in patches."""
    along = np.arange(side)
    gap = np.abs(along[:, None] - along[None, :]).ravel()
    return float(np.hypot(gap[:, None], gap[None, :]).mean())


@lru_cache(maxsize=256)
def placement_distance(side: int, n_first: int, n_second: int) -> float:
    """Return the expected EMD of two uniform maps on cells drawn at random, in patches."""
    if n_first == 1 or n_second == 1:
        return mean_distance(side)  # every unit of mass travels between two uniform cells
    random = np.random.default_rng(12345)
    distances = _whole_grid(side)
    total = 0.0
    for _ in range(N_PLACEMENTS):
        first, second = np.zeros((2, side * side))
        first[random.choice(side * side, n_first, replace=False)] = 1 / n_first
        second[random.choice(side * side, n_second, replace=False)] = 1 / n_second
        total += _emd(first, second, distances)
    return total / N_PLACEMENTS


def expected_instability(
    spec: PlantedSpec, shift: int
) -> dict[str, tuple[tuple[float, float], tuple[float, float]]]:
    """Return reading -> ((D̄_out, its error), (D̄_non, its error)) in patches, heads averaged.

    Outlier positions are drawn afresh in each view, as the specification says; membership is
    "either". Distances are averaged within an image first.
    """
    random = np.random.default_rng(54321)
    draws = [_instability_draw(spec, shift, random) for _ in range(N_ATTENTION_DRAWS)]
    result: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {}
    for reading in ("query", "received", "key"):
        columns = np.asarray([draw[reading] for draw in draws])
        error = np.nanstd(columns, axis=0, ddof=1) / np.sqrt(len(draws))
        mean = np.nanmean(columns, axis=0)
        result[reading] = ((mean[0], error[0]), (mean[1], error[1]))
    return result


@lru_cache(maxsize=64)
def _relocating(grid: int, shift: int, support: int) -> ExpectedCds:
    """Average over how many of ``support`` cells, drawn in p² anew, fall in the overlap of q²."""
    side = grid - shift
    diameter = np.sqrt(2.0) * (side - 1)
    chance = [
        float(hypergeom.pmf(n, grid * grid, side * side, support)) for n in range(support + 1)
    ]
    kept = distance = missed = 0.0
    for first, second in product(range(support + 1), repeat=2):
        weight = chance[first] * chance[second]
        if first and second:
            kept += weight
            # cells too improbable to matter are not worth a simulation
            if weight > 1e-4:
                distance += weight * placement_distance(side, first, second) / diameter
        elif first or second:
            missed += weight
    share = missed / (kept + missed)
    mean = distance / kept
    return ExpectedCds((1 - share) * mean + share, mean, (1 - share) * mean, share)


def _fixed(first: Map, second: Map) -> ExpectedCds:
    if not first.any() or not second.any():
        return ExpectedCds(1.0, float("nan"), 0.0, 1.0)
    side = first.shape[0]
    distance = _emd(
        first.ravel() / first.sum(), second.ravel() / second.sum(), _whole_grid(side)
    ) / (np.sqrt(2.0) * (side - 1))
    return ExpectedCds(distance, distance, distance, 0.0)


def _instability_draw(
    spec: PlantedSpec, shift: int, random: np.random.Generator
) -> dict[str, tuple[float, float]]:
    side = spec.grid - shift
    inner = np.s_[shift:, shift:], np.s_[:side, :side]
    distances, diameter = _whole_grid(side), np.sqrt(2.0) * (side - 1)
    masks = np.zeros((2, spec.n_positions), bool)
    for mask in masks:
        mask[random.choice(spec.n_positions, spec.n_outliers, replace=False)] = True
    cut = [m.reshape(spec.grid, spec.grid)[i].ravel() for m, i in zip(masks, inner, strict=True)]
    flat = np.arange(spec.n_positions).reshape(spec.grid, spec.grid)
    either = cut[0] | cut[1]
    out = np.flatnonzero(either)
    non = random.choice(np.flatnonzero(~either), N_ATTENTION_TOKENS, replace=False)
    found: dict[str, list[list[float]]] = {"query": [], "received": [], "key": []}
    for head in spec.heads:
        rows: list[Map] = []
        for mask, where in zip(masks, inner, strict=True):
            cells = flat[where].ravel()
            rows.append(attention_rows(spec, head, mask)[:, 1:][np.ix_(cells, cells)])
        one, other = rows
        received = [
            [_side(one.mean(0) * a, other.mean(0) * b, distances, diameter)]
            for a, b in ((cut[0], cut[1]), (~cut[0], ~cut[1]))
        ]
        found["received"].append([float(np.nanmean(values)) for values in received])
        for reading, (a, b) in {"query": (one, other), "key": (one.T, other.T)}.items():
            means = [
                float(np.mean([_side(a[t], b[t], distances, diameter) for t in group]))
                for group in (out, non)
            ]
            found[reading].append(means)
    averaged = {name: np.nanmean(np.asarray(values), 0) for name, values in found.items()}
    return {name: (float(value[0]), float(value[1])) for name, value in averaged.items()}


def _side(first: Map, second: Map, distances: Map, diameter: float) -> float:
    if not first.any() and not second.any():
        return float("nan")
    if not first.any() or not second.any():
        return diameter
    return _emd(first / first.sum(), second / second.sum(), distances)


@lru_cache(maxsize=16)
def _whole_grid(side: int) -> Map:
    cells = np.asarray(list(product(range(side), repeat=2)), dtype=np.float64)
    return np.asarray(ot.dist(cells, cells, metric="euclidean"))


def _emd(first: Map, second: Map, distances: Map) -> float:
    solved: Any = ot.emd2(first, second / second.sum() * first.sum(), distances, numItermax=10**6)
    return float(solved)
