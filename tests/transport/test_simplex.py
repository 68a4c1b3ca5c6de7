"""The transportation simplex alone: trees, plans and certificates, against a linear programme."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core import config
from numpy.typing import NDArray
from scipy.optimize import linprog
from tests.transport.map_pairs import KINDS, Map, attention

from vitscope.transport import pot
from vitscope.transport.emd import transport
from vitscope.transport.simplex import Arcs, Basis, Problem


def interpreted(name: str) -> Any:
    """Return a module of compiled functions as plain Python, which starts at once."""
    path = Path(pot.__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"interpreted_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "DISABLE_JIT", True)
        spec.loader.exec_module(module)
    return module


simplex = interpreted("simplex")

PIVOTS = 10_000


def problem(cost: Map, supply: NDArray[np.int64], demand: NDArray[np.int64]) -> Problem:
    """Perturbed as the solver needs it: each source a unit more, all of them for the last sink."""
    m, n = cost.shape
    made = simplex.problem_of(m, n, m * n)
    made.cost[:] = np.rint(cost * 2.0**43).ravel() / 2.0**43
    made.supply[:] = supply * 1024 + 1
    made.demand[:] = demand * 1024
    made.demand[-1] += m
    made.supply_share[:], made.demand_share[:] = supply / supply.sum(), demand / demand.sum()
    return made


def random_problem(random: np.random.Generator, m: int, n: int, most: int) -> Problem:
    total = m * n * most
    supply = random.multinomial(total - m, np.full(m, 1 / m)) + 1
    demand = random.multinomial(total - n, np.full(n, 1 / n)) + 1
    here, there = random.integers(0, 9, (m, 2)), random.integers(0, 9, (n, 2))
    return problem(np.hypot(*(here[:, None] - there).transpose(2, 0, 1)), supply, demand)


def planted(posed: Problem) -> tuple[Basis, Arcs]:
    m, n = len(posed.supply), len(posed.demand)
    arcs, tree = simplex.arcs_of(m, n, m * n), simplex.basis_of(m + n)
    simplex.greedy_plan(posed, arcs, m, n, float(posed.cost.max()) + 1)
    simplex.plant(tree, posed, arcs, m, n)
    return tree, arcs


def solved(posed: Problem) -> Basis:
    tree, _ = planted(posed)
    assert simplex.optimise(tree, posed, len(posed.supply), len(posed.demand), PIVOTS) >= 0
    return tree


def mean_cost(posed: Problem, tree: Basis) -> float:
    return simplex.plan_cost(tree, posed, len(posed.supply), len(posed.demand))


def linear_programme(posed: Problem) -> float:
    m, n = len(posed.supply), len(posed.demand)
    rows = np.kron(np.eye(m), np.ones(n))
    columns = np.kron(np.ones(m), np.eye(n))
    shares = np.concatenate([posed.supply, posed.demand]) / posed.supply.sum()
    result = linprog(posed.cost, A_eq=np.vstack([rows, columns])[:-1], b_eq=shares[:-1])
    return float(result.fun)


def flows(posed: Problem, tree: Basis) -> NDArray[np.int64]:
    m, n = len(posed.supply), len(posed.demand)
    plan = np.zeros((m, n), np.int64)
    for node in range(1, m + n):
        other = int(tree.parent[node])
        plan[max(node, other) - n, min(node, other)] += tree.flow[node]
    return plan


def check_tree(posed: Problem, tree: Basis) -> None:
    """Preorder, depths, potentials and flows, each against its definition."""
    m, n = len(posed.supply), len(posed.demand)
    order, node = [0], int(tree.after[0])
    while node != 0:
        order.append(node)
        node = int(tree.after[node])
    assert sorted(order) == list(range(m + n))
    assert [int(tree.before[tree.after[node]]) for node in order] == order
    place = {node: k for k, node in enumerate(order)}
    cost = posed.cost.reshape(m, n)
    for node in order[1:]:
        above = int(tree.parent[node])
        assert (node < n) != (above < n)
        assert tree.depth[node] == tree.depth[above] + 1
        between = order[place[above] + 1 : place[node]]
        assert all(tree.depth[other] > tree.depth[above] for other in between)
        i, j = max(node, above), min(node, above)
        assert tree.potential[i] - tree.potential[j] == cost[i - n, j]
    plan = flows(posed, tree)
    assert plan.min() >= 0
    assert (plan > 0).sum() == m + n - 1  # a perturbed problem has no empty arc
    np.testing.assert_array_equal(plan.sum(1), posed.supply)
    np.testing.assert_array_equal(plan.sum(0), posed.demand)


SIZES = [(2, 2), (2, 9), (9, 2), (5, 5), (8, 11), (30, 20)]


@pytest.mark.parametrize(("m", "n"), SIZES)
@pytest.mark.parametrize("most", [1, 3, 1000])
def test_the_first_plan_is_a_tree_and_stays_one_pivot_by_pivot(m: int, n: int, most: int) -> None:
    posed = random_problem(np.random.default_rng(m * 100 + n), m, n, most)
    tree, _ = planted(posed)
    check_tree(posed, tree)
    cost, n_pivots = np.inf, 0
    while simplex.optimise(tree, posed, m, n, 1) < 0:  # a cap of one: one pivot, then too many
        check_tree(posed, tree)
        now = float((flows(posed, tree) * posed.cost.reshape(m, n) / posed.supply.sum()).sum())
        assert now < cost
        cost, n_pivots = now, n_pivots + 1
        assert n_pivots < 20 * (m + n)
    check_tree(posed, tree)


@pytest.mark.parametrize(("m", "n"), SIZES)
@pytest.mark.parametrize("most", [1, 1000])
def test_the_optimum_is_that_of_a_linear_programme(m: int, n: int, most: int) -> None:
    posed = random_problem(np.random.default_rng(m + n * 100 + most), m, n, most)
    assert mean_cost(posed, solved(posed)) == pytest.approx(linear_programme(posed), abs=1e-9)


def test_a_plan_that_is_not_optimal_has_no_cost() -> None:
    posed = random_problem(np.random.default_rng(0), 12, 9, 50)
    tree, _ = planted(posed)
    assert linear_programme(posed) < (flows(posed, tree) / posed.supply.sum()).ravel() @ posed.cost
    assert np.isnan(mean_cost(posed, tree))


def test_a_plan_that_is_damaged_has_no_cost() -> None:
    posed = random_problem(np.random.default_rng(1), 12, 9, 50)
    good = solved(posed)
    assert mean_cost(posed, good) > 0
    for node, change in ((3, 1), (15, -1), (7, -(10**15))):
        tree = simplex.Basis(*(part.copy() for part in good))
        tree.flow[node] += change
        assert np.isnan(mean_cost(posed, tree))
    for node in (2, 14):
        tree = simplex.Basis(*(part.copy() for part in good))
        tree.potential[node] += 1e-9
        assert np.isnan(mean_cost(posed, tree))
    posed.cost[posed.cost.argmax()] = -50  # a way that the plan does not know
    assert np.isnan(mean_cost(posed, good))
    posed.cost[0] = np.nan
    assert np.isnan(mean_cost(posed, good))


@pytest.mark.parametrize("side", ["supply", "demand"])
def test_a_plan_for_other_masses_has_no_cost(side: str) -> None:
    posed = random_problem(np.random.default_rng(5), 7, 8, 50)
    tree = solved(posed)
    getattr(posed, side)[3] += 1
    assert np.isnan(mean_cost(posed, tree))


def test_too_many_pivots_are_said() -> None:
    posed = random_problem(np.random.default_rng(2), 20, 20, 50)
    n_pivots = simplex.optimise(planted(posed)[0], posed, 20, 20, PIVOTS)
    assert n_pivots > 1
    assert simplex.optimise(planted(posed)[0], posed, 20, 20, n_pivots) == n_pivots
    assert simplex.optimise(planted(posed)[0], posed, 20, 20, n_pivots - 1) == -1


def test_short_arcs_of_far_out_cells_go_first() -> None:
    posed = random_problem(np.random.default_rng(4), 12, 9, 50)
    cost = posed.cost.reshape(12, 9)
    means = (cost @ posed.demand_share)[:, None] + posed.supply_share @ cost
    first = np.unravel_index((cost - simplex.PERIPHERY * means).argmin(), cost.shape)
    _, arcs = planted(posed)
    assert (arcs.source[0], arcs.sink[0]) == first


def test_few_pivots_are_needed_on_maps_like_ours() -> None:
    random = np.random.default_rng(3)
    first, second = zip(*(attention(random, (15, 15)) for _ in range(20)), strict=True)
    work = transport(np.stack(first), np.stack(second))
    assert (work.pivots / work.nodes).mean() < 1.5  # 2.0 without the weight of far-out cells
    pairs = [kind(random, (12, 12)) for kind in KINDS for _ in range(10)]
    work = transport(np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs]))
    assert (work.pivots <= 6 * work.nodes).all()
