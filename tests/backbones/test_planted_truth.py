"""The closed forms of the planted backbone against protocol section 5 and independent sums."""

import itertools
import math
from typing import Any

import numpy as np
import ot
import pytest

from vitscope.backbones.planted import truth
from vitscope.backbones.planted.spec import Atom, Border, Kind, PlantedSpec
from vitscope.backbones.planted.truth import (
    ExpectedCds,
    expected_cds,
    expected_instability,
    mean_distance,
    placement_distance,
)
from vitscope.scope.instability import ATTENTION_READINGS

SPEC = PlantedSpec()


def expected(
    kind: Kind, *, support: int | None = None, border: Border | None = None
) -> ExpectedCds:
    return expected_cds(SPEC, Atom(kind, support=support, border=border), 1)


@pytest.mark.parametrize(("support", "value"), [(1, 0.40), (2, 0.37), (4, 0.30), (8, 0.23)])
def test_relocating_cells_score_what_the_protocol_says(support: int, value: float) -> None:
    assert expected(Kind.GLOBAL, support=support).drop == pytest.approx(value, abs=0.011)


def test_a_local_atom_scores_nothing() -> None:
    assert expected(Kind.LOCAL) == ExpectedCds(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("border", "value", "tolerance"),
    [
        (Border.FRAME, 0.48, 0.005),
        (Border.CORNERS, 1.0, 1e-12),
        # one cell to the right and down of where its content was: √2 of √2·12 patches
        (Border.INTERIOR, 1 / 12, 1e-12),
    ],
)
def test_border_atoms_score_what_the_protocol_says(
    border: Border, value: float, tolerance: float
) -> None:
    found = expected(Kind.BORDER, border=border)
    assert found.drop == pytest.approx(value, abs=tolerance)
    assert (found.max, found.zero, found.missed) == (found.drop, found.drop, 0)


def test_an_edge_is_outside_the_overlap_of_one_view() -> None:
    found = expected(Kind.BORDER, border=Border.EDGE)
    assert (found.max, found.zero, found.missed) == (1, 0, 1)
    assert math.isnan(found.drop)


@pytest.mark.parametrize("shift", [1, 3])
def test_misses_of_a_single_cell_are_binomial(shift: int) -> None:
    inside = ((14 - shift) / 14) ** 2
    missed = 2 * inside * (1 - inside)
    share = missed / (missed + inside**2)
    found = expected_cds(SPEC, Atom(Kind.GLOBAL, support=1), shift)
    side = 14 - shift
    drop = mean_distance(side) / (math.sqrt(2) * (side - 1))
    assert found.missed == pytest.approx(share)
    assert found.drop == pytest.approx(drop)
    assert found.max == pytest.approx(share + (1 - share) * drop)
    assert found.zero == pytest.approx((1 - share) * drop)


def test_the_mean_distance_is_the_mean_over_all_pairs_of_cells() -> None:
    cells = list(itertools.product(range(4), repeat=2))
    distances = [math.dist(a, b) for a in cells for b in cells]
    assert mean_distance(4) == pytest.approx(sum(distances) / len(distances))
    assert placement_distance(13, 1, 5) == mean_distance(13)


def test_placements_of_two_cells_are_the_mean_over_all_of_them() -> None:
    cells = list(itertools.product(range(3), repeat=2))
    cost = {pair: math.dist(*pair) for pair in itertools.product(cells, repeat=2)}
    choices = list(itertools.combinations(cells, 2))
    total = 0.0
    for (a, b), (c, d) in itertools.product(choices, repeat=2):
        total += min(cost[a, c] + cost[b, d], cost[a, d] + cost[b, c]) / 2
    exact = total / len(choices) ** 2
    assert placement_distance(3, 2, 2) == pytest.approx(exact, abs=0.08)


@pytest.mark.parametrize(("n", "m"), [(2, 3), (1, 6), (4, 7)])
def test_the_placement_distance_is_symmetric(n: int, m: int) -> None:
    # up to its simulation error
    assert placement_distance(13, n, m) == pytest.approx(placement_distance(13, m, n), rel=0.06)


def test_more_cells_relocate_less() -> None:
    distances = [placement_distance(13, n, n) for n in (1, 2, 4, 8)]
    assert distances == sorted(distances, reverse=True)


def test_attention_of_outliers_moves_as_far_as_a_simulation_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Outlier rows are even in both views: only tokens that change their kind move."""
    monkeypatch.setattr(truth, "N_ATTENTION_DRAWS", 16)
    found = expected_instability(SPEC, 1)
    assert tuple(found) == ATTENTION_READINGS
    side, n = 13, 196
    stays = _row_against_even(side)
    both = (SPEC.n_outliers / n) ** 2
    one = 2 * (SPEC.n_outliers / n) * (1 - SPEC.n_outliers / n)
    expected_out = stays * one / (one + both)
    (out, error), (non, _) = found["query"]
    assert out == pytest.approx(expected_out, abs=4 * error + 0.15)
    assert 0 < non < out
    for (d_out, _), (d_non, _) in found.values():
        assert 0 <= d_out <= math.sqrt(2) * (side - 1)
        assert 0 <= d_non <= math.sqrt(2) * (side - 1)


def _row_against_even(side: int) -> float:
    """Mean EMD of an ordinary row against an even one, heads and token places averaged."""
    random = np.random.default_rng(0)
    cells = np.asarray(list(itertools.product(range(side), repeat=2)), dtype=np.float64)
    cost = ot.dist(cells, cells, metric="euclidean")
    even = np.full(side * side, 1 / side**2)
    distances: list[float] = []
    for head in SPEC.heads:
        for _ in range(40):
            row = np.zeros(side * side)
            own = random.integers(side * side)
            row[own] += 1 - head.cls - head.outliers - head.locked
            places = random.choice(side * side, SPEC.n_outliers - 2, replace=False)
            row[places] += head.outliers / SPEC.n_outliers
            row[6 * side + 6] += head.locked
            solved: Any = ot.emd2(row / row.sum(), even, cost)
            distances.append(float(solved))
    return float(np.mean(distances))
